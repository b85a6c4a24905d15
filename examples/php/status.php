<?php
// How a campaign stands: php status.php CAMPAIGN

require __DIR__ . '/fanoutd.php';

$campaign = fanoutd('campaign.get', ['campaign' => $argv[1]]);
$counts = $campaign['counts'];
$sent = array_sum(array_filter($counts, fn ($name) => str_starts_with($name, 'sent_'), ARRAY_FILTER_USE_KEY));
echo "$campaign[state]: $sent of $campaign[total] sent, $counts[failed] failed, $counts[unknown] unknown\n";
if ($campaign['reason'] !== null) {
    echo $campaign['reason'], "\n";   // why it waits, or was paused, and what to do
}
