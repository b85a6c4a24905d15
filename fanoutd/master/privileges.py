"""From root to the daemon's own user, for good, before anything of the daemon's is opened.

Root never opens or creates a file in a folder that the user may write: a link put there by the user
would lead root elsewhere.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import resource
import sys
from collections.abc import Iterable
from pathlib import Path

from fanoutd.config import Config, load
from fanoutd.errors import BadConfig, FanoutdError, NotPermitted

#: Descriptors that are asked for, if the hard limit allows it.
_DESCRIPTORS = 65536


def limit_process() -> None:
    """For any user: files are not for others, no core with secrets in it, as many descriptors as may be."""
    os.umask(0o027)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, _DESCRIPTORS)
    if soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def socket_gid(config: Config) -> int | None:
    """The socket's group. Raises BadConfig for one that does not exist, NotPermitted for one not ours to give."""
    name = config.daemon.socket_group
    if name is None:
        return None
    try:
        gid = grp.getgrnam(name).gr_gid
    except KeyError:
        raise BadConfig(f"[daemon] socket_group: there is no group {name!r} on this machine") from None
    if os.geteuid() != 0 and gid not in (os.getegid(), *os.getgroups()):
        raise NotPermitted(f"[daemon] socket_group: user {own_name()} is not in group {name}; add it, or start as root")
    return gid


def drop(config: Config, folders: Iterable[tuple[Path, int]], gid: int | None) -> str | None:
    """Become ``[daemon] user`` if we are root; returns a warning for the log, or None.

    ``folders`` (path, mode) that are missing are made for the user; those that are there are left as they
    are. ``gid`` is a group that the user is to have besides his own. Raises BadConfig for an unknown user or a
    configuration that the user cannot read again, and NotPermitted for another user than ourselves.
    """
    name = config.daemon.user
    if os.geteuid() != 0:
        if name is not None and name != own_name():
            raise NotPermitted(f"[daemon] user: only root can become {name}; start as root or as {name}")
        return None
    if name is None:
        return "runs as root: name a [daemon] user to give that up"
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        raise BadConfig(f"[daemon] user: there is no user {name!r} on this machine") from None
    for folder, mode in folders:
        _make_for(folder, mode, user)
    become(user, gid)
    _refuse_unreachable(name)
    _refuse_unreadable(config, name)
    return None


def own_name() -> str:
    """The user that we are, as text even where he has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return f"uid {os.geteuid()}"


def make_folder(folder: Path, mode: int, owner: tuple[int, int] = (-1, -1)) -> None:
    """Make what is missing of the path: parents 0755 and ours, the folder with exactly this mode and owner (uid, gid).

    What is there is left as it is. Raises OSError.
    """
    if folder.exists():
        return
    make_folder(folder.parent, 0o755)
    folder.mkdir(mode=0o700)
    # By its descriptor: who may write in the parent could have put a link in its place by now.
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.fstat(fd).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "somebody put another folder in its place")
        os.fchmod(fd, mode)  # a mode given to mkdir is cut by the umask
        os.fchown(fd, *owner)
    finally:
        os.close(fd)


def _make_for(folder: Path, mode: int, user: pwd.struct_passwd) -> None:
    try:
        make_folder(folder, mode, (user.pw_uid, user.pw_gid))
    except OSError as e:
        raise NotPermitted(f"{folder}: {e.strerror}; make it, and give it to {user.pw_name}") from None


def become(user: pwd.struct_passwd, extra_gid: int | None) -> None:
    """Be this user, with his groups and perhaps one more, for good. Raises FanoutdError if that is not so.

    The order matters: groups while we may, the user last.
    """
    groups = {*os.getgrouplist(user.pw_name, user.pw_gid), *(() if extra_gid is None else (extra_gid,))}
    os.setgroups(sorted(groups))
    os.setresgid(user.pw_gid, user.pw_gid, user.pw_gid)
    os.setresuid(user.pw_uid, user.pw_uid, user.pw_uid)
    became = os.getresuid() == (user.pw_uid,) * 3 and os.getresgid() == (user.pw_gid,) * 3
    if not became or set(os.getgroups()) != groups or _root_again(user):
        raise FanoutdError(f"[daemon] user: root was not given up for {user.pw_name}; nothing is started")


def _root_again(user: pwd.struct_passwd) -> bool:
    """Whether there is a way back."""
    if user.pw_uid == 0:
        return False  # `user = "root"`: that is what was asked for
    try:
        os.setuid(0)
    except PermissionError:
        return False
    return True


def _refuse_unreachable(name: str) -> None:
    """Each generation's code is loaded by the user, and the next program is started by him."""
    for path, how in ((sys.executable, os.X_OK), (__file__, os.R_OK)):
        if not os.access(path, how):
            raise NotPermitted(f"[daemon] user: {name} does not get at {path}; install the program where he does")


def _refuse_unreadable(config: Config, name: str) -> None:
    """A reload reads it again, as the user."""
    try:
        load(config.path)
    except BadConfig as e:
        raise BadConfig(f"user {name} must be able to read it again for a reload: {e}") from None
