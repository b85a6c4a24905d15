<?php
// For a site that receives WeChat's messages itself: hand a follower's 0 or 1 on, and answer with what comes back.
//   php reply.php OPENID CONTENT        in your handler: FromUserName and Content, after you checked the signature
//
// Other content needs not be handed on; to tell that this person wrote something (48 hours of custom messages), do.

require __DIR__ . '/fanoutd.php';

[, $openid, $content] = $argv;
$reply = fanoutd('subscriber.reply', ['openid' => $openid, 'content' => $content])['reply'];
if ($reply === null) {
    fanoutd('subscriber.event', ['openid' => $openid, 'event' => 'message']);
    echo "success\n";   // nothing to say: your own answer, if you have one
} else {
    echo "$reply\n";    // the text of a passive reply
}
