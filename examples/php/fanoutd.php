<?php
// What the other examples share: one question to the daemon, one answer.

const FANOUTD_NOT_NOW = -32005;   // try again later, with the same key

/** The method's result. Throws RuntimeException: its code is JSON-RPC's, or 0 when no daemon answers. */
function fanoutd(string $method, array $params = [], float $seconds = 10.0): array
{
    $path = getenv('FANOUTD_SOCKET') ?: '/run/fanoutd/fanoutd.sock';
    $socket = @stream_socket_client("unix://$path", $errno, $words, $seconds);
    if ($socket === false) {
        throw new RuntimeException("no daemon answers on $path: $words");
    }
    stream_set_timeout($socket, (int) ceil($seconds));
    // Text that is not UTF-8 (GBK, say) must not get this far: json_encode would throw here.
    $line = json_encode(['jsonrpc' => '2.0', 'id' => 1, 'method' => $method, 'params' => $params], JSON_THROW_ON_ERROR);
    for ($rest = "$line\n"; $rest !== ''; $rest = substr($rest, $written)) {
        $written = fwrite($socket, $rest);   // may take a part of a long line only
        if ($written === false || $written === 0) {
            throw new RuntimeException("the daemon on $path does not read");
        }
    }
    $answer = fgets($socket);
    fclose($socket);
    if ($answer === false) {
        throw new RuntimeException("the daemon on $path does not answer");
    }
    $answer = json_decode($answer, true, 64, JSON_THROW_ON_ERROR);
    if (isset($answer['error'])) {
        throw new RuntimeException($answer['error']['message'], $answer['error']['code']);
    }
    return $answer['result'];
}
