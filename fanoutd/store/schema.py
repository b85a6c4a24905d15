"""The tables, and how a store of an older version becomes one of this.

A migration is a tuple of statements; its number is its place in ``MIGRATIONS``, counting from 1.
Where the database can, all of it is one transaction. Later versions append and never edit; what they append must let
programs of the version before go on.
"""

from __future__ import annotations

from fanoutd.errors import BadConfig
from fanoutd.store import meta
from fanoutd.store.database import Database

_META = "CREATE TABLE fanout_meta (name VARCHAR(96) NOT NULL PRIMARY KEY, value TEXT NOT NULL)"

#: Deliveries are clustered by (shard, pos) and have no further index: a state that changes would
#: have to be moved in it with every send. Counters stand on the shard row, never counted.
_V1 = (
    """CREATE TABLE fanout_campaign (
        id VARCHAR(64) NOT NULL PRIMARY KEY,
        account VARCHAR(64) NOT NULL,
        message VARCHAR(64) NOT NULL,
        audience VARCHAR(64),
        reference TEXT,
        idempotency_key TEXT,
        state VARCHAR(16) NOT NULL,
        cause VARCHAR(16),
        reason TEXT,
        created_at BIGINT NOT NULL,
        send_at BIGINT,
        started_at BIGINT,
        finished_at BIGINT,
        planned SMALLINT NOT NULL DEFAULT 0,
        node VARCHAR(64) NOT NULL,
        origin VARCHAR(8) NOT NULL,
        definition TEXT NOT NULL)""",
    "CREATE INDEX fanout_campaign_created ON fanout_campaign (created_at, id)",
    "CREATE INDEX fanout_campaign_state ON fanout_campaign (state)",
    # `next` is where the claimed range [0, next) ends; a pending row below it is in flight.
    """CREATE TABLE fanout_shard (
        id INTEGER NOT NULL PRIMARY KEY,
        campaign VARCHAR(64) NOT NULL,
        idx INTEGER NOT NULL,
        size INTEGER NOT NULL,
        next INTEGER NOT NULL DEFAULT 0,
        token BIGINT NOT NULL DEFAULT 0,
        owner VARCHAR(96),
        lease_until BIGINT NOT NULL DEFAULT 0,
        pending INTEGER NOT NULL,
        sent_custom INTEGER NOT NULL DEFAULT 0,
        sent_template INTEGER NOT NULL DEFAULT 0,
        failed INTEGER NOT NULL DEFAULT 0,
        skipped INTEGER NOT NULL DEFAULT 0,
        unknown INTEGER NOT NULL DEFAULT 0,
        errors TEXT NOT NULL)""",
    "CREATE UNIQUE INDEX fanout_shard_campaign ON fanout_shard (campaign, idx)",
    "CREATE INDEX fanout_shard_owner ON fanout_shard (owner, pending)",
    # `attempt` is the fencing token of the lease under which a row became unknown.
    """CREATE TABLE fanout_delivery (
        shard INTEGER NOT NULL,
        pos INTEGER NOT NULL,
        openid VARCHAR(64) NOT NULL,
        state SMALLINT NOT NULL DEFAULT 0,
        channel SMALLINT,
        errcode INTEGER,
        msgid BIGINT,
        attempts INTEGER NOT NULL DEFAULT 0,
        generation INTEGER NOT NULL DEFAULT 0,
        attempt BIGINT NOT NULL DEFAULT 0,
        updated_at BIGINT,
        person TEXT,
        PRIMARY KEY (shard, pos)) WITHOUT ROWID""",
    """CREATE TABLE fanout_token (
        account VARCHAR(64) NOT NULL PRIMARY KEY,
        token TEXT NOT NULL,
        expires_at BIGINT NOT NULL,
        fetched_at BIGINT NOT NULL)""",
)

#: `resend` counts those of `unknown` who are to be sent to again (state 5). `tries` and `since` go on over leases;
#: `since` is of the boot whose tag is `boot`, and means nothing on another.
_V2 = (
    "ALTER TABLE fanout_shard ADD COLUMN resend INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE fanout_delivery ADD COLUMN tries SMALLINT NOT NULL DEFAULT 0",
    "ALTER TABLE fanout_delivery ADD COLUMN since BIGINT",
    "ALTER TABLE fanout_delivery ADD COLUMN boot BIGINT",
)

#: A subscriber is known for one of two reasons: `listed` in the embedded audience, or something was learnt of them
#: (opted out, gone until, an open window). `since` is when `state` began; see store/subscribers.
#: `quota` counts calls by the day of Asia/Shanghai; the outbox holds statements and commands for the operator's side.
_V3 = (
    "ALTER TABLE fanout_shard ADD COLUMN sent_subscribe INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE fanout_subscriber (
        account VARCHAR(64) NOT NULL,
        openid VARCHAR(64) NOT NULL,
        state SMALLINT NOT NULL DEFAULT 0,
        listed SMALLINT NOT NULL DEFAULT 0,
        since BIGINT NOT NULL,
        gone_until BIGINT,
        window_kind VARCHAR(16),
        window_until BIGINT,
        window_left INTEGER,
        event_at BIGINT,
        sync BIGINT,
        person TEXT,
        PRIMARY KEY (account, openid)) WITHOUT ROWID""",
    """CREATE TABLE fanout_quota (
        account VARCHAR(64) NOT NULL,
        channel SMALLINT NOT NULL,
        day INTEGER NOT NULL,
        used BIGINT NOT NULL DEFAULT 0,
        intended BIGINT NOT NULL DEFAULT 0,
        daily_limit BIGINT,
        cap BIGINT,
        checked_at BIGINT,
        rest_until BIGINT,
        PRIMARY KEY (account, channel, day))""",
    """CREATE TABLE fanout_outbox (
        id INTEGER NOT NULL PRIMARY KEY,
        name VARCHAR(64) NOT NULL,
        payload TEXT NOT NULL,
        due BIGINT NOT NULL,
        tries INTEGER NOT NULL DEFAULT 0,
        error TEXT)""",
    "CREATE INDEX fanout_outbox_due ON fanout_outbox (due)",
    """CREATE TABLE fanout_recurring (
        id VARCHAR(64) NOT NULL PRIMARY KEY,
        cron VARCHAR(128) NOT NULL,
        timezone VARCHAR(64) NOT NULL,
        submission TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        last_at BIGINT,
        last_campaign VARCHAR(64))""",
)

#: Of several machines on one store: who they are (`secret` tells two of one name apart,
#: `boot` two that start from one disk's image), and what one of them does
#: for all (`token` rises with each new holder). Times are the database's. `resumes` counts how often a campaign was
#: let go on: who sees another number forgets what it had against it. `heard` is for `repair`: whose journals were read.
_V4 = (
    """CREATE TABLE fanout_node (
        node VARCHAR(64) NOT NULL PRIMARY KEY,
        secret VARCHAR(64) NOT NULL,
        boot VARCHAR(36) NOT NULL DEFAULT '',
        version VARCHAR(32) NOT NULL,
        workers INTEGER NOT NULL DEFAULT 0,
        joined_at BIGINT NOT NULL,
        heartbeat BIGINT NOT NULL,
        gone SMALLINT NOT NULL DEFAULT 0)""",
    """CREATE TABLE fanout_lease (
        name VARCHAR(64) NOT NULL PRIMARY KEY,
        owner VARCHAR(64) NOT NULL,
        token BIGINT NOT NULL,
        until BIGINT NOT NULL)""",
    "ALTER TABLE fanout_campaign ADD COLUMN resumes INTEGER NOT NULL DEFAULT 0",
    "ALTER TABLE fanout_campaign ADD COLUMN heard TEXT",
    """CREATE TABLE fanout_round (
        owner VARCHAR(96) NOT NULL PRIMARY KEY,
        number BIGINT NOT NULL,
        at BIGINT NOT NULL)""",
    # See store/shares: of an account's rate what 45011 has left, and which node holds how much.
    """CREATE TABLE fanout_rate (
        account VARCHAR(64) NOT NULL PRIMARY KEY,
        rest_until BIGINT NOT NULL DEFAULT 0,
        halved INTEGER NOT NULL DEFAULT 1000,
        rate BIGINT NOT NULL DEFAULT 0)""",
    """CREATE TABLE fanout_share (
        account VARCHAR(64) NOT NULL,
        node VARCHAR(64) NOT NULL,
        part BIGINT NOT NULL,
        rate BIGINT NOT NULL,
        wants BIGINT NOT NULL,
        term BIGINT NOT NULL,
        beat BIGINT NOT NULL,
        PRIMARY KEY (account, node))""",
    # See store/quotas: calls are counted in a row of each worker's own. What was counted before stays where it is.
    """CREATE TABLE fanout_quota_part (
        account VARCHAR(64) NOT NULL,
        channel SMALLINT NOT NULL,
        day INTEGER NOT NULL,
        owner VARCHAR(96) NOT NULL,
        used BIGINT NOT NULL DEFAULT 0,
        intended BIGINT NOT NULL DEFAULT 0,
        PRIMARY KEY (account, channel, day, owner))""",
)

#: What people and we ourselves did to a campaign, for as long as there is the campaign: see store/history. `who` is the
#: name that the uid had on its node. `gone` are campaigns that retention has taken away: see store/retention.
_V5 = (
    """CREATE TABLE fanout_history (
        id INTEGER NOT NULL PRIMARY KEY,
        campaign VARCHAR(64) NOT NULL,
        at BIGINT NOT NULL,
        node VARCHAR(64) NOT NULL,
        action VARCHAR(32) NOT NULL,
        uid BIGINT,
        who VARCHAR(64),
        pid BIGINT,
        detail TEXT)""",
    "CREATE INDEX fanout_history_campaign ON fanout_history (campaign, id)",
    """CREATE TABLE fanout_gone (
        campaign VARCHAR(64) NOT NULL PRIMARY KEY,
        at BIGINT NOT NULL,
        shard BIGINT NOT NULL,
        left_over SMALLINT NOT NULL)""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_V1, _V2, _V3, _V4, _V5)
VERSION = len(MIGRATIONS)


#: In fanout_meta, in place of the version, while another store's rows are copied into this one.
UNFINISHED = "copying"

#: In fanout_meta of a store that was copied: where to.
MOVED = "moved_to"


def everything() -> tuple[str, ...]:
    """The statements that make a store of this version."""
    return (_META, *(statement for migration in MIGRATIONS for statement in migration))


def define_all(db: Database) -> None:
    """Make every table. The store has no version then, and so nobody uses it yet."""
    for statement in everything()[1:]:
        db.define(statement)


def define_meta(db: Database) -> None:
    """Make the table that will say the version, if it is not there."""
    if not db.has_table("fanout_meta"):
        db.define(_META)


def migrate(db: Database, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    """Bring the store to this version; returns the version it had.

    Two processes may do it at once: the second finds the work done. Raises BadConfig for a store
    that a newer version of the program has already changed.
    """
    if (had := version(db)) != len(migrations):  # else the store's user need not have CREATE
        with db.migrating():
            had = version(db)
            for number in range(had + 1, len(migrations) + 1):
                _apply(db, number, migrations[number - 1])
    if had > len(migrations):
        raise BadConfig(
            f"the store has version {had}, this program knows {len(migrations)}: it was used by a newer fanoutd; "
            "install that one"
        )
    return had


def version(db: Database) -> int:
    """The number of the last migration that the store has seen, 0 for a new store.

    Raises BadConfig for one into which another store's rows were not copied to their end.
    """
    if not db.has_table("fanout_meta"):
        return 0
    if meta.read(db, UNFINISHED) is not None:
        raise BadConfig(
            f"store {db.place}: `fanoutd migrate` into it was cut off; run that again, or drop its fanout_ tables"
        )
    return int(meta.read(db, "version") or 0)


def refuse_moved(db: Database) -> None:
    """Raises BadConfig for a store that was moved away: what was sent since stands in the other one."""
    if (target := meta.read(db, MOVED)) is not None:
        raise BadConfig(
            f"store {db.place}: was moved to {target} by `fanoutd migrate`; put that into [store] url. If nothing was "
            "done there and this one is to go on after all: `fanoutd migrate --undo`"
        )


def _apply(db: Database, number: int, statements: tuple[str, ...]) -> None:
    """Its number comes last: where the database cannot undo a change to its tables, it is made again from the start."""
    define_meta(db)
    for statement in statements:
        db.define(statement)
    meta.write(db, "version", str(number))
