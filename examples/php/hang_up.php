<?php
// As the clients of a Swoole task server do it: write one object and leave. It is served; a refusal is logged and mailed,
// for nobody is there to be told. Better: wait for the line of answer, as submit.php does.

$path = getenv('FANOUTD_SOCKET') ?: '/run/fanoutd/fanoutd.sock';
$socket = stream_socket_client("unix://$path");
fwrite($socket, json_encode(['content' => $argv[1], 'flag' => $argv[2] ?? '0', 'phone' => $argv[3] ?? '']));
fclose($socket);
