"""The configuration that `fanoutd init` writes: it passes `config check` as it stands."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from fanoutd.config.model import Account, Message
from fanoutd.errors import BadInput, NotPermitted

STARTER = '''\
# fanoutd's configuration. `fanoutd config check` says whether it is right, `fanoutd config show`
# what it comes to with all defaults. Relative paths are relative to this file's folder.

[daemon]
state_dir = "state"      # spool, journals and the SQLite store; the socket is fanoutd.sock in there

[workers]
count = 4                # worker processes
concurrency = 64         # requests on the wire in each of them

# ---- Your official account -------------------------------------------------------------------
# Both values stand in WeChat's console under 设置与开发 / 基本配置, where the address of this machine
# must be on the IP whitelist as well.
[account.main]
app_id = "wx0000000000000000"
app_secret = "put-yours-here"     # better: app_secret_file = "main.secret", or the environment's
                                  # FANOUTD_MAIN_APP_SECRET. Keep this file unreadable for others.
# api_base = "http://127.0.0.1:8080"   # to practise on `fanoutd sandbox`, which takes any id and secret
rate = 100                        # calls a second, all workers together
timezone = "Asia/Shanghai"        # for {now}

# ---- What is sent ----------------------------------------------------------------------------
# The channels are tried in this order. A custom message reaches only followers who were active in
# the last 48 hours; for the others WeChat answers 45015, and the template message goes out instead.
# The bodies are WeChat's own, less touser. Placeholders: {content} {phone} {now} {campaign}
# {reference}, and what `variables` names; a literal brace is doubled.
#
# WeChat's rules: a template message tells people of something they asked for or take part in. It must
# NOT be used for marketing; WeChat punishes that, up to closing the interface for good. Respect those
# who want no messages.
[message.default]
channels = ["custom", "template"]
too_long = "cut"         # a template value over its limit ends in "…"; "fail" refuses it

[message.default.custom]
msgtype = "text"
text.content = """{content}

回复0取消接收信息，回复1重新接收信息"""

[message.default.template]
template_id = "put-your-template-id-here"
data.thing1.value = "{content}"
data.phone_number2.value = "{phone}"
data.time3.value = "{now}"

# ---- Whom it tells ---------------------------------------------------------------------------
# A mail when something breaks, one when it is well again, one about each campaign, one a day.
# `fanoutd mail test` sends one now and says what the server said.
# [mail]
# smtp = "smtps://user:password@smtp.example.com:465"   # or smtp+starttls://, smtp://
# from = "fanoutd <fanoutd@example.com>"
# to = ["ops@example.com"]

# ---- Who gets it -----------------------------------------------------------------------------
# Any SQL that yields a column openid; without an audience, give the people with
# `fanoutd send --openids FILE`. Parameters are %(name)s, a literal percent is %%.
# [audience.default]
# database = "sqlite:////var/lib/shop/followers.db"
# query = """SELECT openid FROM tp_receiver
#            WHERE (expire_time > %(now)s OR send_status = 1) AND receive_status = 1"""
'''


#: What stands in it for the operator's own values.
_APP_ID, _SECRET, _TEMPLATE = "wx0000000000000000", "put-yours-here", "put-your-template-id-here"


def untouched(accounts: Iterable[Account], messages: Iterable[Message]) -> Iterator[str]:
    """A line for each of the starter's values that nobody has replaced: WeChat refuses them, the sandbox does not."""
    real = [account for account in accounts if account.api_base.startswith("https:")]
    for account in real:
        for key, value, ours in ("app_id", account.app_id, _APP_ID), ("app_secret", account.app_secret, _SECRET):
            if value == ours:
                yield f"[account.{account.name}] {key} is still that of `fanoutd init`: put in yours"
    for message in messages if real else ():
        for channel, body in message.bodies.items():
            if body.get("template_id") == _TEMPLATE:
                yield f"[message.{message.name}.{channel}] template_id is still that of `fanoutd init`: put in yours"


def write_starter(folder: Path) -> Path:
    """Write ``fanoutd.toml`` into the folder, for the owner's eyes only; return its path.

    Raises BadInput when there is one already, NotPermitted when the folder cannot be written.
    """
    file = folder / "fanoutd.toml"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # 0600 from the first moment: a secret will stand in it.
        fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as e:
        what = "is no folder" if e.filename == str(folder) else "is there already; it is left as it is"
        raise BadInput(f"{e.filename}: {what}") from None
    except OSError as e:
        raise NotPermitted(f"{file}: {e.strerror}; choose a folder that you may write to") from None
    with os.fdopen(fd, "w", encoding="utf-8") as stream:
        stream.write(STARTER)
    return file
