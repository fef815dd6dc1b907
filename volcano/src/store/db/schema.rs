//! The tables. `docs/FORMAT.md` describes every column.

/// Marks the file as ours: "MAGM".
pub(super) const APPLICATION_ID: i64 = 0x4D41_474D;

/// Set for every connection.
///
/// The write-ahead log of `SQLite` is checkpointed by us, from another thread. `NORMAL` means that a commit is not synced: it
/// need not be, since the store's own log has everything that the database may lose.
pub(super) const SETTINGS: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    PRAGMA wal_autocheckpoint = 0;
    PRAGMA temp_store = MEMORY;
    PRAGMA cache_size = -65536;
    PRAGMA mmap_size = 1073741824;
    PRAGMA trusted_schema = OFF;
";

/// Makes an empty database. Unsigned 64-bit numbers are stored as the signed number with the same bits.
pub(super) const TABLES: &str = "
    CREATE TABLE state(
        id INTEGER PRIMARY KEY CHECK (id = 1),
        applied INTEGER NOT NULL,
        bodies INTEGER NOT NULL,
        flares INTEGER NOT NULL,
        bytes INTEGER NOT NULL
    ) STRICT;
    INSERT INTO state VALUES (1, 0, 0, 0, 0);

    CREATE TABLE slices(
        id INTEGER PRIMARY KEY,
        epoch INTEGER NOT NULL,
        seq INTEGER NOT NULL,
        time_s INTEGER NOT NULL,
        time_n INTEGER NOT NULL,
        floor INTEGER NOT NULL,
        history BLOB NOT NULL,
        missing BLOB NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        parent INTEGER,
        divided INTEGER
    ) STRICT;

    CREATE TABLE flares(
        id INTEGER PRIMARY KEY,
        ino INTEGER NOT NULL UNIQUE,
        key BLOB NOT NULL,
        birth_number INTEGER NOT NULL,
        birth BLOB NOT NULL,
        kind INTEGER NOT NULL,
        life INTEGER NOT NULL,
        mode INTEGER NOT NULL,
        nlink INTEGER NOT NULL,
        uid INTEGER NOT NULL,
        gid INTEGER NOT NULL,
        rdev INTEGER NOT NULL,
        size INTEGER NOT NULL,
        atime_s INTEGER NOT NULL,
        atime_n INTEGER NOT NULL,
        mtime_s INTEGER NOT NULL,
        mtime_n INTEGER NOT NULL,
        ctime_s INTEGER NOT NULL,
        ctime_n INTEGER NOT NULL,
        btime_s INTEGER NOT NULL,
        btime_n INTEGER NOT NULL,
        change INTEGER NOT NULL,
        body INTEGER,
        high INTEGER,
        verifier INTEGER,
        entries INTEGER NOT NULL,
        next_cookie INTEGER NOT NULL,
        has_acl INTEGER NOT NULL,
        striping BLOB,
        sheds INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX flares_orphans ON flares(key) WHERE life = 1;
    CREATE INDEX flares_shedding ON flares(key) WHERE sheds = 1;

    CREATE TABLE entries(
        dir INTEGER NOT NULL,
        name BLOB NOT NULL,
        child BLOB NOT NULL,
        kind INTEGER NOT NULL,
        cookie INTEGER NOT NULL,
        made_by BLOB NOT NULL,
        PRIMARY KEY (dir, name)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX entries_cookies ON entries(dir, cookie);

    CREATE TABLE refs(
        flare INTEGER NOT NULL,
        parent BLOB NOT NULL,
        name BLOB NOT NULL,
        made_by BLOB NOT NULL,
        PRIMARY KEY (flare, parent, name, made_by)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE xattrs(
        flare INTEGER NOT NULL,
        name BLOB NOT NULL,
        value BLOB NOT NULL,
        PRIMARY KEY (flare, name)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE inlines(
        flare INTEGER PRIMARY KEY,
        data BLOB NOT NULL
    ) STRICT;

    CREATE TABLE locks(
        flare INTEGER NOT NULL,
        number INTEGER NOT NULL,
        session INTEGER NOT NULL,
        family INTEGER NOT NULL,
        owner INTEGER NOT NULL,
        pid INTEGER NOT NULL,
        kind INTEGER NOT NULL,
        first INTEGER NOT NULL,
        last INTEGER NOT NULL,
        PRIMARY KEY (flare, number)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX locks_sessions ON locks(session);

    CREATE TABLE sessions(
        slice INTEGER NOT NULL,
        id INTEGER NOT NULL,
        client TEXT NOT NULL,
        opened_s INTEGER NOT NULL,
        opened_n INTEGER NOT NULL,
        acknowledged INTEGER NOT NULL,
        PRIMARY KEY (slice, id)
    ) STRICT, WITHOUT ROWID;

    CREATE TABLE transactions(
        slice INTEGER NOT NULL,
        key BLOB NOT NULL,
        attempt BLOB NOT NULL,
        driven INTEGER NOT NULL,
        row BLOB NOT NULL,
        PRIMARY KEY (slice, key, attempt, driven)
    ) STRICT;

    CREATE TABLE bodies(
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        body INTEGER NOT NULL,
        born INTEGER NOT NULL,
        flare BLOB NOT NULL,
        high INTEGER NOT NULL,
        used INTEGER,
        summed INTEGER NOT NULL,
        dropped INTEGER,
        UNIQUE (body, born)
    ) STRICT;
    CREATE INDEX bodies_flares ON bodies(flare) WHERE dropped IS NULL;
    CREATE INDEX bodies_unsummed ON bodies(id) WHERE summed = 0 AND dropped IS NULL;
    CREATE INDEX bodies_dropped ON bodies(id) WHERE dropped IS NOT NULL;

    CREATE TABLE blocks(
        body INTEGER NOT NULL,
        block INTEGER NOT NULL,
        length INTEGER NOT NULL,
        crc INTEGER NOT NULL,
        PRIMARY KEY (body, block)
    ) STRICT, WITHOUT ROWID;
";
