<?php
// A notice to everybody, exactly once: php submit.php ORDER TEXT PHONE
//
// The key makes it one campaign, however often this runs: a payment notification that comes twice, a page that is
// loaded again, an answer that was lost.

require __DIR__ . '/fanoutd.php';

[, $order, $text, $phone] = $argv;
try {
    $answer = fanoutd('campaign.submit', [
        'content' => $text, 'phone' => $phone, 'key' => "order-$order", 'reference' => $order,
    ]);
} catch (RuntimeException $e) {
    // 0 and FANOUTD_NOT_NOW: try again later, with the same key. Any other code: mend the call.
    fwrite(STDERR, $e->getMessage() . "\n");
    exit(in_array($e->getCode(), [0, FANOUTD_NOT_NOW], true) ? 75 : 65);
}
echo $answer['campaign'], $answer['duplicate'] ? " known already\n" : " accepted\n";
