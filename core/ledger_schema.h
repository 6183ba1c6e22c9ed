/* The state's tables. Column by column they are the structs of ledger.h; what comes from outside is a BLOB. */
#ifndef CORE_LEDGER_SCHEMA_H
#define CORE_LEDGER_SCHEMA_H

/* One entry a version: what makes version n of version n - 1. Entries are only ever added. */
static const char *const ledger_schema[] = {
        "CREATE TABLE account ("
        " id INTEGER PRIMARY KEY, name BLOB NOT NULL, mailbox BLOB NOT NULL, fresh INTEGER NOT NULL DEFAULT 1,"
        " last_run INTEGER NOT NULL DEFAULT 0, no_pipeline INTEGER NOT NULL DEFAULT 0, no_capa INTEGER NOT NULL DEFAULT 0,"
        " sizes_differ INTEGER NOT NULL DEFAULT 0, UNIQUE (name, mailbox));"
        "CREATE TABLE mark ("
        " id INTEGER PRIMARY KEY, account INTEGER NOT NULL, uid BLOB NOT NULL, occurrence INTEGER NOT NULL,"
        " state INTEGER NOT NULL, header_hash BLOB, content_hash BLOB, size INTEGER NOT NULL,"
        " first_seen INTEGER NOT NULL, last_seen INTEGER NOT NULL, deleted INTEGER NOT NULL,"
        " leave INTEGER NOT NULL, leave_age INTEGER NOT NULL, attempts INTEGER NOT NULL, script_hash BLOB,"
        " reason BLOB NOT NULL, spool BLOB NOT NULL, origin BLOB NOT NULL, UNIQUE (account, uid, occurrence));"
        "CREATE INDEX mark_content ON mark (account, content_hash) WHERE content_hash IS NOT NULL;"
        "CREATE INDEX mark_header ON mark (account, header_hash) WHERE header_hash IS NOT NULL;"
        "CREATE INDEX mark_open ON mark (account) WHERE state <> 1;"
        "CREATE INDEX mark_spool ON mark (spool) WHERE spool <> x'';"
        "CREATE TABLE resume (account INTEGER PRIMARY KEY, number INTEGER NOT NULL, uid BLOB NOT NULL,"
        " limited INTEGER NOT NULL);"
        "CREATE TABLE run (id BLOB PRIMARY KEY, started INTEGER NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE rename ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT, run BLOB NOT NULL, staged_dir BLOB NOT NULL, staged BLOB NOT NULL,"
        " target_dir BLOB NOT NULL, target BLOB NOT NULL, dev INTEGER NOT NULL, ino INTEGER NOT NULL,"
        " \"replace\" INTEGER NOT NULL, numbered INTEGER NOT NULL);"
        "CREATE TABLE append ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT, run BLOB NOT NULL, path BLOB NOT NULL, staged BLOB NOT NULL,"
        " dev INTEGER NOT NULL, ino INTEGER NOT NULL, \"offset\" INTEGER NOT NULL, length INTEGER NOT NULL, hash BLOB);"
        "CREATE TABLE outbox ("
        " id INTEGER PRIMARY KEY AUTOINCREMENT, action BLOB NOT NULL, kind INTEGER NOT NULL, state INTEGER NOT NULL,"
        " created INTEGER NOT NULL, next_try INTEGER NOT NULL, tries INTEGER NOT NULL, account BLOB NOT NULL,"
        " source BLOB NOT NULL, subject BLOB NOT NULL, smarthost BLOB NOT NULL, sender BLOB NOT NULL, argv BLOB NOT NULL,"
        " spool BLOB NOT NULL, at_most_once INTEGER NOT NULL, answer BLOB NOT NULL);"
        "CREATE INDEX outbox_spool ON outbox (spool) WHERE spool <> x'';"
        "CREATE TABLE recipient ("
        " id INTEGER PRIMARY KEY, item INTEGER NOT NULL, who BLOB NOT NULL, state INTEGER NOT NULL, answer BLOB NOT NULL);"
        "CREATE INDEX recipient_item ON recipient (item);"
        "CREATE TABLE store ("
        " store BLOB NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, expires INTEGER NOT NULL, PRIMARY KEY (store, key))"
        " WITHOUT ROWID;"
        "CREATE INDEX store_expires ON store (expires) WHERE expires > 0;",
        "ALTER TABLE mark ADD COLUMN next_try INTEGER NOT NULL DEFAULT 0;",
        "ALTER TABLE account ADD COLUMN paced_until INTEGER NOT NULL DEFAULT 0;",
        "CREATE TABLE series ("
        " id INTEGER PRIMARY KEY, dir BLOB NOT NULL, name BLOB NOT NULL, used INTEGER NOT NULL, UNIQUE (dir, name));"
        "CREATE INDEX series_used ON series (used);"
        "CREATE TABLE saved ("
        " series INTEGER NOT NULL, number INTEGER NOT NULL, hash BLOB NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,"
        " written INTEGER NOT NULL, changed INTEGER NOT NULL, PRIMARY KEY (series, number)) WITHOUT ROWID;"
        "CREATE INDEX saved_hash ON saved (series, hash);",
        "ALTER TABLE resume ADD COLUMN names INTEGER NOT NULL DEFAULT 0;",
};

enum { LEDGER_SCHEMA = sizeof ledger_schema / sizeof *ledger_schema };

#endif
