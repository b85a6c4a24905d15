<?php
// A list of people that is longer than one line: php upload.php FILE TEXT. The file has an openid a line.

require __DIR__ . '/fanoutd.php';

$part = [];
foreach (new SplFileObject($argv[1]) as $line) {
    if (($openid = trim($line)) !== '') {
        $part[] = $openid;
    }
    if (count($part) === 10000) {   // some 300 KB; [daemon] max_request is 1 MiB
        $list = fanoutd('audience.upload', ['openids' => $part] + (isset($list) ? ['upload' => $list['upload']] : []));
        $part = [];
    }
}
if ($part) {
    $list = fanoutd('audience.upload', ['openids' => $part] + (isset($list) ? ['upload' => $list['upload']] : []));
}
$answer = fanoutd('campaign.submit', ['content' => $argv[2], 'phone' => '', 'upload' => $list['upload']]);
echo "$answer[campaign] for $list[count] people\n";
