/* The state directory: opened, checked, closed; the lock of a mailbox. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "core/ledger_int.h"
#include "core/ledger_schema.h"
#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"

enum {
        BUSY_MS = 10000,                   /* how long another process may hold the state */
        CHECK_BYTES_MAX = 8 * 1024 * 1024, /* a state up to here is checked whole at each start: some 20 ms */
        SAVED_KEPT = 400 * 86400,          /* names of saved files not used for so long are looked up on the disk again */
        EXPIRED_KEPT = 30 * 86400,         /* a store's expired value is dropped this much later, in case the clock was wrong */
};

static bool exec(struct ledger *l, const char *doing, const char *sql, struct err *e)
{
        int rc = sqlite3_exec(l->db, sql, NULL, NULL, NULL);

        return rc == SQLITE_OK ? true : ledger_failed(l, sqlite3_extended_errcode(l->db), doing, e);
}

/* A pragma's, or any, single number. */
static bool number(struct ledger *l, const char *doing, const char *sql, int64_t *out, struct err *e)
{
        sqlite3_stmt *s = NULL;
        int rc = sqlite3_prepare_v2(l->db, sql, -1, &s, NULL);

        if (rc == SQLITE_OK)
                rc = sqlite3_step(s);
        *out = rc == SQLITE_ROW ? sqlite3_column_int64(s, 0) : 0;
        if (rc != SQLITE_ROW)
                ledger_failed(l, sqlite3_extended_errcode(l->db), doing, e);
        sqlite3_finalize(s);
        return rc == SQLITE_ROW;
}

/* ---- the directory --------------------------------------------------------------------------------------------- */

static bool check_dir(struct ledger *l, struct err *e)
{
        struct statfs fs;
        struct stat st;

        if (fstat(l->dir, &st) != 0)
                return err_sys(e, ERR_IO, errno, "looking at the state directory %s", l->path);
        if (st.st_uid != geteuid())
                return err_set(e, ERR_USAGE, "the state directory %s belongs to another user (uid %u): choose one of yours with --state",
                               l->path, (unsigned)st.st_uid);
        if (st.st_mode & (S_IWGRP | S_IWOTH))
                return err_set(e, ERR_USAGE, "the state directory %s can be written by others: chmod go-w %s", l->path, l->path);
        if (!l->readonly && fstatfs(l->dir, &fs) == 0 && fs.f_type == NFS_SUPER_MAGIC)
                log_warn("the state directory %s lies on NFS: never use it from two machines at once", l->path);
        return true;
}

static char *join(const char *dir, const char *name)
{
        size_t n = strlen(dir), m = strlen(name);
        char *p = mem_alloc(n + m + 2);

        if (p)
                snprintf(p, n + m + 2, "%s/%s", dir, name);
        return p;
}

/* An absent directory leaves l->dir at -1 when readonly. A new one is durable before anything in it is promised. */
static bool open_dir(struct ledger *l, const char *dir, struct err *e)
{
        char real[PATH_MAX];
        struct stat st;
        bool made = stat(dir, &st) != 0 && errno == ENOENT;

        if (made && !l->readonly && !sys_mkdirs(dir, 0700, e))
                return err_in(e, "making the state directory %s", dir);
        if ((!made || !l->readonly) && !realpath(dir, real))
                return err_sys(e, ERR_IO, errno, "finding the state directory %s", dir);
        l->path = made && l->readonly ? mem_dup(dir, strlen(dir)) : mem_dup(real, strlen(real));
        l->file = l->path ? join(l->path, "state.db") : NULL;
        if (!l->file)
                return err_nomem(e);
        if (made && l->readonly)
                return true;
        l->dir = sys_open(l->path, O_RDONLY | O_DIRECTORY, 0, e);
        return l->dir >= 0 && check_dir(l, e) && (!made || sys_syncfs(l->dir, e));
}

/* ---- the database ---------------------------------------------------------------------------------------------- */

static bool has(struct ledger *l, const char *name, struct stat *st)
{
        return l->dir >= 0 && fstatat(l->dir, name, st, AT_SYMLINK_NOFOLLOW) == 0;
}

/* SQLite would make it readable for others (and what it makes beside it takes the mode of this one). */
static bool make_private(struct ledger *l, struct err *e)
{
        int fd = sys_open_beneath(l->dir, STR("state.db"), O_RDWR | O_CREAT | O_NOFOLLOW, 0600, e);
        struct stat st;

        if (fd < 0)
                return err_in(e, "opening the state %s", l->path);
        if (fstat(fd, &st) == 0 && st.st_mode & 077)
                (void)!fchmod(fd, 0600);
        close(fd);
        return true;
}

static bool connect_db(struct ledger *l, const char *name, int flags, struct err *e)
{
        int rc = sqlite3_open_v2(name, &l->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

        if (rc != SQLITE_OK)
                return ledger_failed(l, rc, "opening it", e);
        sqlite3_busy_timeout(l->db, BUSY_MS);
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_DQS_DDL, 0, NULL);
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_DQS_DML, 0, NULL);
        return exec(l, "setting it up", "PRAGMA temp_store = MEMORY", e);
}

/* Torn or emptied: without this check an empty file would be taken for a new state, and all mail for new mail. */
static bool check_not_emptied(struct ledger *l, struct err *e)
{
        struct stat db, wal, spool;

        if (has(l, "state.db", &db) && db.st_size == 0 && !(has(l, "state.db-wal", &wal) && wal.st_size > 0) && has(l, "spool", &spool))
                return err_set(e, ERR_IO, "the state %s is empty, though it was in use. Put a backup in its place; or move %s away: every "
                               "message is then new again", l->file, l->path);
        return true;
}

static bool check_whole(struct ledger *l, struct err *e)
{
        sqlite3_stmt *s = NULL;
        struct stat st;
        bool good;
        int rc;

        if (!has(l, "state.db", &st) || st.st_size > CHECK_BYTES_MAX)
                return true;
        rc = sqlite3_prepare_v2(l->db, "PRAGMA quick_check(1)", -1, &s, NULL);
        if (rc == SQLITE_OK)
                rc = sqlite3_step(s);
        good = rc == SQLITE_ROW && strcmp((const char *)sqlite3_column_text(s, 0), "ok") == 0;
        sqlite3_finalize(s);
        return good ? true : ledger_failed(l, rc == SQLITE_ROW ? SQLITE_CORRUPT : rc, "checking it", e);
}

/* ---- the schema ------------------------------------------------------------------------------------------------ */

static bool step_schema(struct ledger *l, int64_t from, struct err *e)
{
        char set[64];

        for (int64_t v = from; v < LEDGER_SCHEMA; v++) {
                if (!exec(l, "making its tables", ledger_schema[v], e))
                        return false;
        }
        snprintf(set, sizeof set, "PRAGMA user_version = %d", LEDGER_SCHEMA);
        return exec(l, "making its tables", set, e);
}

static bool schema_known(struct ledger *l, int64_t *version, struct err *e)
{
        if (!number(l, "reading its version", "PRAGMA user_version", version, e))
                return false;
        if (*version > LEDGER_SCHEMA)
                return err_set(e, ERR_USAGE, "the state %s was written by a newer mailmill (schema %lld, this one knows %d)", l->file,
                               (long long)*version, LEDGER_SCHEMA);
        return true;
}

static bool migrate(struct ledger *l, struct err *e)
{
        int64_t version;
        bool ok;

        if (!schema_known(l, &version, e) || version == LEDGER_SCHEMA)
                return version == LEDGER_SCHEMA;
        if (!exec(l, "making its tables", "BEGIN IMMEDIATE", e))
                return false;
        /* asked again: another process may have been first */
        ok = schema_known(l, &version, e) && step_schema(l, version, e) && exec(l, "making its tables", "COMMIT", e);
        if (!ok)
                sqlite3_exec(l->db, "ROLLBACK", NULL, NULL, NULL);
        return ok && sys_fsync(l->dir, e);
}

static bool purge(struct ledger *l, struct err *e)
{
        struct query q;

        query_open(&q, l, "dropping expired values", "DELETE FROM store WHERE expires > 0 AND expires < ?", e);
        query_int(&q, sys_now() - EXPIRED_KEPT);
        return query_run(&q) && ledger_saved_age(l, sys_now() - SAVED_KEPT, e);
}

static bool open_writable(struct ledger *l, struct err *e)
{
        return check_not_emptied(l, e) && make_private(l, e) && connect_db(l, l->file, SQLITE_OPEN_READWRITE, e) &&
               exec(l, "setting it up", "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA journal_size_limit = 67108864", e) &&
               check_whole(l, e) && migrate(l, e) && purge(l, e);
}

/* ---- reading only ---------------------------------------------------------------------------------------------- */

/* An absent state is an empty one. */
static bool open_nothing(struct ledger *l, struct err *e)
{
        return connect_db(l, ":memory:", SQLITE_OPEN_READWRITE | SQLITE_OPEN_MEMORY, e) && step_schema(l, 0, e);
}

static bool open_as_immutable(struct ledger *l, struct err *e)
{
        struct buf uri = BUF_INIT;
        bool ok;

        buf_add_str(&uri, STR("file:"));
        for (const char *c = l->file; *c; c++) {
                if (ascii_is_alnum(*c) || *c == '/' || *c == '.' || *c == '-' || *c == '_')
                        buf_add_char(&uri, *c);
                else
                        buf_printf(&uri, "%%%02x", (unsigned char)*c);
        }
        buf_add(&uri, "?immutable=1", sizeof "?immutable=1"); /* with its NUL */
        ok = buf_ok(&uri, e) && connect_db(l, uri.p, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, e);
        buf_free(&uri);
        return ok;
}

/* SQLite makes files beside a database in WAL mode even for a reader. Where there is no WAL nobody has the state open and the
 * file is complete: it is read as one that doesn't change, and opened anew when a WAL appears (ledger_again). */
static bool open_readonly(struct ledger *l, struct err *e)
{
        struct stat st, wal;
        int64_t version;

        if (!check_not_emptied(l, e))
                return false;
        l->immutable = !has(l, "state.db-wal", &wal) || (wal.st_size == 0 && !has(l, "state.db-shm", &st));
        if (!has(l, "state.db", &st) || (st.st_size == 0 && l->immutable)) {
                l->immutable = false;
                return open_nothing(l, e);
        }
        if (!(l->immutable ? open_as_immutable(l, e) : connect_db(l, l->file, SQLITE_OPEN_READONLY, e)))
                return false;
        sqlite3_db_config(l->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
        if (!schema_known(l, &version, e) || !check_whole(l, e))
                return false;
        return version == LEDGER_SCHEMA ? true
                                        : err_set(e, ERR_USAGE, "the state %s was written by an older mailmill: a run that may write to it "
                                                  "brings it up to date", l->file);
}

static void disconnect(struct ledger *l)
{
        for (size_t i = 0; i < STATEMENTS_MAX; i++)
                sqlite3_finalize(l->cache[i].stmt);
        memset(l->cache, 0, sizeof l->cache);
        sqlite3_close_v2(l->db);
        l->db = NULL;
}

bool ledger_again(struct ledger *l, struct err *e)
{
        struct stat wal;

        if (l->db && !has(l, "state.db-wal", &wal))
                return true;
        disconnect(l);
        return open_readonly(l, e);
}

/* ---- opening and closing --------------------------------------------------------------------------------------- */

static void init_lock(pthread_mutex_t *m)
{
        pthread_mutexattr_t a;

        pthread_mutexattr_init(&a);
        pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE);
        pthread_mutex_init(m, &a);
        pthread_mutexattr_destroy(&a);
}

struct ledger *ledger_open(const char *dir, bool readonly, struct err *e)
{
        struct ledger *l = mem_zero(sizeof *l);

        if (!l) {
                err_nomem(e);
                return NULL;
        }
        l->dir = -1;
        l->readonly = readonly;
        init_lock(&l->lock);
        if (open_dir(l, dir, e) && (readonly ? open_readonly(l, e) : open_writable(l, e)))
                return l;
        ledger_close(l);
        return NULL;
}

void ledger_close(struct ledger *l)
{
        if (!l)
                return;
        disconnect(l);
        if (l->dir >= 0)
                close(l->dir);
        buf_free(&l->leftovers);
        pthread_mutex_destroy(&l->lock);
        mem_free(l->path);
        mem_free(l->file);
        mem_free(l);
}

bool ledger_in_memory(const struct ledger *l)
{
        struct statfs fs;

        return l->dir >= 0 && fstatfs(l->dir, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

int ledger_dir(const struct ledger *l) { return l->dir; }
const char *ledger_path(const struct ledger *l) { return l->path; }

/* ---- the lock of a mailbox ------------------------------------------------------------------------------------- */

/* The file stays: removing it would let two runs lock two files of one name. A reader that finds none has nobody to fear. */
static int open_lock(struct ledger *l, const char *name, struct err *e)
{
        int dir, fd;

        if (l->readonly && (l->dir < 0 || faccessat(l->dir, name, F_OK, 0) != 0))
                return sys_open("/dev/null", O_RDWR, 0, e);
        if (!l->readonly) {
                dir = sys_mkdirs_beneath(l->dir, STR("locks"), NULL, NULL, e);
                if (dir < 0)
                        return -1;
                close(dir);
        }
        fd = sys_open_beneath(l->dir, str_of(name), O_RDWR | O_NOFOLLOW | (l->readonly ? 0 : O_CREAT), 0600, e);
        if (fd >= 0 && !sys_lock(fd, e)) {
                close(fd);
                return -1;
        }
        return fd;
}

int ledger_lock(struct ledger *l, struct str mailbox, struct err *e)
{
        char name[6 + 2 * DIGEST_SIZE + 1] = "locks/";
        uint8_t hash[DIGEST_SIZE];
        int fd;

        if (!digest_of(mailbox, hash)) {
                err_nomem(e);
                return -1;
        }
        digest_hex(hash, name + 6);
        fd = open_lock(l, name, e);
        if (fd < 0 && e && e->code == ERR_BUSY)
                err_set(e, ERR_BUSY, "another run is working on the mailbox %.*s", STR_FMT(mailbox));
        else if (fd < 0)
                err_in(e, "locking the mailbox %.*s", STR_FMT(mailbox));
        return fd;
}
