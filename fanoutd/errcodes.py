"""WeChat's errcodes as data: what each is about, what to do, and short texts in English and Chinese.

Numbers and meanings are those of WeChat's published lists of return codes and of the SDKs that carry them; some are
known from users' reports alone. What to do about each is our decision. Codes of calls that fanoutd does not make
(mass sends, typing, media) are here too, so that a report has words for whatever WeChat says.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, IntEnum
from types import MappingProxyType


class Verdict(Enum):
    """What to do with the delivery after this answer."""

    SENT = "sent"
    NEXT_CHANNEL = "next channel"
    """A definite refusal of this channel alone: the next one may be tried."""
    RETRY = "retry"
    """Refused for now: the same channel again, after a pause."""
    TOKEN = "token"
    """The token was refused: again with another one."""
    REST = "rest"
    """The account called too often: everybody waits, then again."""
    QUOTA = "quota"
    """Today's calls are used up: everybody waits for tomorrow."""
    ACCOUNT = "account"
    """The account or this machine may not call: sending stops, nobody has failed."""
    STOP_CAMPAIGN = "stop campaign"
    """It would be the same for everyone: the campaign pauses, nobody has failed."""
    STOP_ACCOUNT = "stop account"
    """The account is barred: all its campaigns pause, nobody has failed, and an operator must see to it."""
    FAILED = "failed"


class Row(IntEnum):
    """Refusals that are about one person each, unless many come in a row; then they are about all."""

    NONE = 0
    STRANGERS = 1
    FIELDS = 2
    RESTRICTED = 3
    UNLISTED = 4
    CONTENT = 5


@dataclass(frozen=True, slots=True)
class Meaning:
    """One errcode.

    ``about``: T token, R recipient, M message or template, Q quota or rate, A account or permission, W WeChat itself.
    ``remedy``: what an operator does about it, where one must. ``on``: other verdicts on some channels.
    ``pause``: before it is tried again, at least so many seconds. ``for_all``: nobody of the account gets through on
    this channel. ``personal``: where the message differs from person to person it may be this one's data alone.
    """

    verdict: Verdict
    about: str
    text: str
    zh: str
    remedy: str = ""
    row: Row = Row.NONE
    on: Mapping[str, Verdict] = field(default_factory=dict)
    pause: float = 0.0
    for_all: bool = False
    personal: bool = False


#: The errcode under which a delivery is stored that we ourselves could not render.
RENDER = -2

Texts = tuple[str, str] | tuple[str, str, str]


def _all(verdict: Verdict, about: str, remedy: str, texts: Mapping[int, Texts]) -> dict[int, Meaning]:
    """Rows of one kind; a third text is the row's own remedy."""
    return {code: Meaning(verdict, about, each[0], each[1], (*each, remedy)[2]) for code, each in texts.items()}


_CONSOLE = "WeChat's console says why and until when; `fanoutd campaign resume` when it is lifted"
_CREDENTIALS = "compare [account] app_id and secret with WeChat's console (basic configuration)"
_ADMIN = "the account's administrator gets a message from WeChat: have it confirmed"
#: Those who have it already must not get it twice.
ANEW = "cancel this campaign and send anew to who is left: `fanoutd campaign export ID --state pending`"
_NEW_MESSAGE = (
    f"mend the message in the configuration and reload; this campaign keeps the message it was submitted with: {ANEW}"
)
_TEMPLATE = "compare the message with the template in WeChat's console; if the template itself was mended, resume"
_BUG = "this should never be sent: report it as a bug of fanoutd, with the errmsg and its rid"
_PLATFORM = "the account is managed by a third-party platform: grant it this permission there, then resume"

_TOKEN = _all(Verdict.TOKEN, "T", "", {
    40001: ("access token refused", "access_token 无效或不是最新的"),
    40014: ("access token invalid", "不合法的 access_token"),
    41001: ("access token missing", "缺少 access_token"),
    42001: ("access token expired", "access_token 已过期"),
})  # fmt: skip

_CREDENTIAL = _all(Verdict.ACCOUNT, "A", _CREDENTIALS, {
    40002: ("grant_type refused", "不合法的凭证类型", _BUG),
    40013: ("app_id refused", "不合法的 AppID"),
    40125: ("app_secret refused", "不合法的 AppSecret"),
    40164: ("this machine's IP address is not on the account's whitelist", "调用接口的 IP 不在白名单中",
            "add the address to the IP whitelist in WeChat's console (basic configuration)"),
    40243: ("the app_secret is frozen", "AppSecret 已被冻结",
            "unfreeze the app_secret in WeChat's console (basic configuration)"),
    41002: ("app_id missing", "缺少 AppID"),
    41004: ("app_secret missing", "缺少 AppSecret"),
    45035: ("this machine's IP address is not registered", "来源 IP 未登记",
            "add the address to the IP whitelist in WeChat's console (basic configuration)"),
    61004: ("this machine's IP address is not registered", "客户端 IP 未登记",
            "add the address to the IP whitelist in WeChat's console (basic configuration)"),
    89501: ("waiting for the administrator's confirmation", "此 IP 正在等待管理员确认", _ADMIN),
    89502: ("waiting for the administrator's confirmation", "此 IP 的调用等待管理员确认", _ADMIN),
    89503: ("this call needs the administrator's confirmation", "此 IP 调用需要管理员确认", _ADMIN),
    89504: ("waiting for the administrator's confirmation", "已通知管理员,等待确认", _ADMIN),
    89505: ("waiting for the administrator's confirmation", "管理员尚未确认此次调用", _ADMIN),
    89506: ("the administrator refused this machine for 24 hours", "管理员拒绝了此 IP,24 小时内不能再试",
            "ask the administrator; it can be tried again after 24 hours"),
    89507: ("the administrator refused this machine for an hour", "管理员拒绝了此 IP,1 小时内不能再试",
            "ask the administrator; it can be tried again after an hour"),
})  # fmt: skip

_CUSTOM_ONLY = {"template": Verdict.FAILED, "subscribe": Verdict.FAILED}
_STOP_ELSEWHERE = {"template": Verdict.STOP_CAMPAIGN, "subscribe": Verdict.STOP_CAMPAIGN}

_WINDOW = {
    45015: Meaning(Verdict.NEXT_CHANNEL, "R", "has not written or tapped within WeChat's window, or unfollowed",
                   "超出客服消息的时间窗口,或已取消关注", on=_CUSTOM_ONLY),
    45047: Meaning(Verdict.NEXT_CHANNEL, "R", "used up the messages of this window", "客服消息条数已用完",
                   on=_CUSTOM_ONLY),
    45087: Meaning(Verdict.NEXT_CHANNEL, "A", "customer-service messages are barred for the account",
                   "该账号的客服消息能力被禁用", _CONSOLE, on=_STOP_ELSEWHERE, for_all=True),
    48001: Meaning(Verdict.NEXT_CHANNEL, "A", "the account may not use this call", "账号没有该接口的权限",
                   "only verified accounts have it, templates only service accounts: see the permissions in WeChat's "
                   "console, or take the channel out of the message", on=_STOP_ELSEWHERE, for_all=True),
}  # fmt: skip

_BUSY = {
    -1: Meaning(Verdict.RETRY, "W", "WeChat is busy", "系统繁忙"),
    -1000: Meaning(Verdict.RETRY, "W", "WeChat had an internal error", "系统错误"),
    43108: Meaning(Verdict.RETRY, "R", "another call for this follower is under way", "对同一用户的并发调用"),
    43117: Meaning(Verdict.RETRY, "R", "was sent too much of late", "对该用户发送过于频繁", pause=60.0),
    45066: Meaning(Verdict.RETRY, "Q", "mass sends follow each other too fast", "群发间隔过短", pause=60.0),
    61450: Meaning(Verdict.RETRY, "W", "WeChat had an internal error", "客服系统错误"),
}  # fmt: skip

_LIMITS = _all(Verdict.REST, "Q", "", {45011: ("too many calls in a minute", "每分钟调用次数超限")}) | _all(
    Verdict.QUOTA, "Q", "", {
        45009: ("today's calls of this kind are used up", "当日调用次数已达上限"),
        45028: ("no mass sends are left", "群发配额已用完"),
    })  # fmt: skip

_PERSON = _all(Verdict.FAILED, "R", "", {
    40003: ("openid unknown to this account", "openid 无效或不属于此账号"),
    43004: ("does not follow the account", "用户未关注"),
    43019: ("is on the account's blacklist", "用户在黑名单中"),
    43101: ("refused messages of this kind, or the consent is used up", "用户拒收此类消息,或授权次数已用完"),
    45072: ("the typing command is wrong", "输入状态命令无效"),
    45080: ("has not written within 30 seconds", "30 秒内没有互动,不能下发输入状态"),
    45081: ("typing is shown already", "已在输入状态中"),
    46004: ("no such user", "用户不存在"),
    48002: ("switched messages off", "用户关闭了接收消息"),
    49003: ("openid of another account", "openid 与此 AppID 不匹配"),
    50002: ("the user or the account is restricted", "用户受限(账号被冻结或注销)"),
    50005: ("does not follow the account", "用户未关注公众号"),
}) | _all(Verdict.FAILED, "M", "", {
    45002: ("the text is too long", "消息内容超过限制"),
    47003: ("a value breaks the rules of its template field", "模板参数不符合规则"),
})  # fmt: skip

_MESSAGE = _all(Verdict.STOP_CAMPAIGN, "M", _NEW_MESSAGE, {
    40004: ("the kind of media is wrong", "不合法的媒体文件类型"),
    40005: ("the kind of file is wrong", "不合法的文件类型"),
    40006: ("the size of the file is wrong", "不合法的文件大小"),
    40007: ("media_id invalid or expired", "media_id 无效或已过期",
            f"upload the media again, put the new media_id into the message and reload; then {ANEW}"),
    40008: ("the kind of message is wrong", "不合法的消息类型"),
    40009: ("the size of the picture is wrong", "不合法的图片文件大小"),
    40033: ("characters that WeChat refuses", "请求含有不允许的字符(如 \\uxxxx)"),
    40035: ("a parameter is wrong", "不合法的参数"),
    40038: ("format of the request refused", "不合法的请求格式"),
    40097: ("a parameter is wrong", "参数错误"),
    40165: ("mini program page refused", "小程序页面路径无效"),
    40166: ("mini program app_id refused", "小程序 AppID 无效,或未与公众号关联"),
    41028: ("form_id refused", "form_id 不正确或已过期"),
    41029: ("form_id used already", "form_id 已被使用"),
    41030: ("page refused", "page 不正确"),
    44001: ("the media is empty", "多媒体文件为空"),
    44003: ("the article is empty", "图文消息内容为空"),
    44004: ("the text is empty", "文本消息内容为空"),
    45003: ("the title is too long", "标题超过限制"),
    45004: ("the description is too long", "描述超过限制"),
    45005: ("the link is too long", "链接超过限制"),
    45007: ("the voice message is too long", "语音播放时间超过限制"),
    45008: ("too many articles", "图文消息的条数超过限制"),
    45012: ("the template is too large", "模板大小超过限制"),
    45013: ("the template has too many values", "模板参数过多"),
    45014: ("a value of the template is too large", "模板参数过大"),
    45050: ("this msgtype does not exist", "不支持的消息类型"),
    45051: ("a link is not allowed here", "不允许的链接"),
    45162: ("this msgtype does not exist", "消息类型无效"),
    45168: ("a banned word in the text", "内容含有违禁词"),
    61451: ("the customer-service account is wrong", "客服账号参数无效"),
    61452: ("the customer-service account is wrong", "客服账号无效"),
    61453: ("the customer-service account exists already", "客服账号已存在"),
    61454: ("the name of the customer-service account is too long", "客服账号名过长"),
    61455: ("the name of the customer-service account has wrong characters", "客服账号名含有非法字符"),
    61456: ("there are too many customer-service accounts", "客服账号个数超过限制"),
    61457: ("the picture of the customer-service account is wrong", "客服头像的文件类型无效"),
}) | _all(Verdict.STOP_CAMPAIGN, "M", _TEMPLATE, {
    40037: ("template_id unknown", "模板 ID 无效",
            "see whether the template is still in WeChat's console of this very account; else put the right "
            f"template_id into the message, reload, {ANEW}"),
    43100: ("the template changed too often, or is gone", "模板修改过于频繁,或已不存在"),
    43116: ("the template is banned", "该模板已被封禁"),
})  # fmt: skip

_OWN_BUG = _all(Verdict.STOP_CAMPAIGN, "M", _BUG, {
    40031: ("the list of openids is wrong", "不合法的 openid 列表"),
    40032: ("the list of openids is too long", "openid 列表的长度不合法"),
    40130: ("a mass send wants two openids at least", "群发至少需要两个 openid"),
    41003: ("refresh_token missing", "缺少 refresh_token 参数"),
    41005: ("media missing", "缺少多媒体文件数据"),
    41006: ("media_id missing", "缺少 media_id 参数"),
    41007: ("menu missing", "缺少子菜单数据"),
    41008: ("code missing", "缺少 oauth code"),
    41009: ("openid missing", "缺少 openid"),
    43001: ("the call must be a GET", "需要 GET 请求"),
    43002: ("the call must be a POST", "需要 POST 请求"),
    43003: ("the call must be HTTPS", "需要 HTTPS 请求", "let [account] api_base begin with https:// and resume"),
    44002: ("the body is empty", "POST 的数据包为空"),
    45065: ("this clientmsgid was used for a mass send already", "相同的 clientmsgid 已群发过"),
    45067: ("the clientmsgid is too long", "clientmsgid 长度超限"),
    45083: ("the speed of mass sends is wrong", "设置的群发速度无效"),
    45084: ("no speed of mass sends is given", "没有设置群发速度"),
    47001: ("the request is not JSON", "JSON/XML 格式错误"),
    47002: ("the request is not UTF-8 JSON", "请求不是 UTF-8 编码的 JSON"),
})  # fmt: skip

_CHANNEL = _all(Verdict.STOP_CAMPAIGN, "A", _CONSOLE, {
    40200: ("this account may not send this kind of message", "此账号类型不能发送该类消息",
            f"take this msgtype out of the message, reload, {ANEW}"),
    45040: ("this month's calls of this kind are used up", "该接口本月调用次数已用完",
            "wait for the next month, or buy more in WeChat's console; then resume"),
    45102: ("WeChat barred this call for a time", "该接口被限制使用一段时间"),
    45103: ("this call is not supported any more", "该接口已不再支持", "take this channel out of the message"),
    45109: ("this call was withdrawn", "该接口已下线", "take this channel out of the message"),
    48003: ("the account has not accepted the rules for this call", "未同意该接口的使用协议",
            "accept the rules in WeChat's console, then resume"),
    48004: ("WeChat barred this call for the account", "该接口被封禁"),
    48006: ("no clearings of the quota are left this month", "本月清零次数已用完", "wait for the next month"),
    48008: ("no right for this kind of message", "没有该类型消息的发送权限"),
    48009: ("the right to this call has expired", "该接口的使用权限已过期",
            "renew it in WeChat's console, then resume"),
})  # fmt: skip

_BARRED = _all(Verdict.STOP_ACCOUNT, "A", _CONSOLE, {
    42007: ("the account's password was changed: its platform tokens are void", "用户已修改密码,授权凭证失效",
            _PLATFORM),
    43106: ("the account is barred for breaking WeChat's rules", "账号因违规被限制发送"),
    43107: ("the account is barred for breaking WeChat's rules", "账号因违规被禁止使用该能力"),
    50001: ("the account has not granted this call", "接口未授权", _PLATFORM),
    50004: ("the account is barred", "账号被禁用"),
    61003: ("the account has not authorised the platform", "账号未授权给该平台", _PLATFORM),
    61007: ("the account has not granted this call to the platform", "账号未将该接口授权给平台", _PLATFORM),
})  # fmt: skip

#: What may be one person's data alone, where a message differs from person to person.
_PERSONAL = (40033, 40165, 44004, 45003, 45004, 45005, 45051, 45168)

_ROWS = {40003: Row.STRANGERS, 49003: Row.STRANGERS, 47003: Row.FIELDS, 50002: Row.RESTRICTED}


def _table() -> dict[int, Meaning]:
    table = {0: Meaning(Verdict.SENT, "", "accepted", "成功")}
    for rows in (_TOKEN, _CREDENTIAL, _WINDOW, _BUSY, _LIMITS, _PERSON, _MESSAGE, _OWN_BUG, _CHANNEL, _BARRED):
        assert not table.keys() & rows.keys()
        table |= rows
    table |= {code: replace(table[code], personal=True) for code in _PERSONAL}
    return table | {code: replace(table[code], row=row) for code, row in _ROWS.items()}


TABLE: Mapping[int, Meaning] = MappingProxyType(_table())

_UNLISTED = Meaning(Verdict.FAILED, "", "refused, errcode not listed", "被拒绝,未列出的错误码", row=Row.UNLISTED)

_RENDER = Meaning(
    Verdict.FAILED, "M", "the message could not be rendered for this person", "无法为该用户生成消息内容"
)


def meaning(errcode: int | str) -> Meaning:
    """What is known of an errcode, given as the number, its text, or ``render``; never fails."""
    if errcode in (RENDER, "render"):
        return _RENDER
    try:
        return TABLE.get(int(errcode), _UNLISTED)
    except ValueError:
        return _UNLISTED


def classify(errcode: int, channel: str | None = None) -> Verdict:
    """The verdict for an errcode, on this channel if it is told; one that nobody knows fails that one delivery."""
    found = TABLE.get(errcode, _UNLISTED)
    return found.on.get(channel, found.verdict) if channel else found.verdict


def describe(errcode: int | str) -> str:
    """A few words for reports; takes the number, its text, or ``render``."""
    return meaning(errcode).text


def describe_zh(errcode: int | str) -> str:
    """The same in Chinese."""
    return meaning(errcode).zh
