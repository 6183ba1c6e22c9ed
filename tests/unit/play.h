/* A run without Lua: a state and a root in a scratch directory, archives and a small POP3 account, and a rule that is a C function. */
#ifndef TESTS_UNIT_PLAY_H
#define TESTS_UNIT_PLAY_H

#include <dirent.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

#include "core/ledger.h"
#include "core/run.h"
#include "core/server_int.h"
#include "core/sys.h"
#include "tests/unit/archives.h"

enum { PLAY_ORDER_MAX = 4096 };

struct play {
        enum verdict (*rule)(struct play *g, struct plan *p, int number, struct err *e);
        enum verdict (*resume)(struct play *g, struct plan *p, int number, struct err *e);
        enum verdict (*finish)(struct play *g, struct plan *p, struct err *e);
        void (*heard)(void *ctx, const struct run_event *ev); /* in the place of play_event */
        struct run_config config;
        struct str archives[8];
        struct account account, *accounts[1];
        void *ctx;
        /* what happened */
        char order[PLAY_ORDER_MAX];      /* "decided 3 of a.mbox|" … in the order of deciding */
        unsigned decided, released, held, settled, ends, calls;
        char why[1024];                  /* of the last held one */
        struct run_result result;
        bool ok;
        struct err e;
};

/* "Subject: message 7" */
static inline int play_number(struct plan *p)
{
        struct str s = p->message ? message_subject(p->message) : STR_NONE;
        char text[64];

        snprintf(text, sizeof text, "%.*s", STR_FMT(s));
        return str_starts(s, STR("message ")) ? atoi(text + 8) : 0;
}

static inline void play_note(struct play *g, const char *what, struct plan *p)
{
        size_t n = strlen(g->order);
        struct str from = p->source ? p->source->name : STR("end");

        from = str_from(from, str_rfind(from, '/') == from.n ? 0 : str_rfind(from, '/') + 1);
        snprintf(g->order + n, sizeof g->order - n, "%s %d of %.*s|", what, play_number(p), STR_FMT(from));
}

static inline enum verdict play_decide(void *ctx, struct plan *p, struct err *e)
{
        struct play *g = ctx;

        g->decided++;
        play_note(g, "decide", p);
        return g->rule(g, p, play_number(p), e);
}

static inline enum verdict play_resume(void *ctx, struct plan *p, struct err *e)
{
        struct play *g = ctx;

        play_note(g, "resume", p);
        return g->resume(g, p, play_number(p), e);
}

static inline void play_release(void *ctx, struct plan *p)
{
        ((struct play *)ctx)->released++;
}

static inline enum verdict play_finish(void *ctx, struct plan *p, struct err *e)
{
        struct play *g = ctx;

        return g->finish ? g->finish(g, p, e) : RUN_DONE;
}

static inline void play_event(void *ctx, const struct run_event *ev)
{
        struct play *g = ctx;

        g->settled += ev->kind == EVENT_DECIDED && ev->plan->message;
        g->held += ev->kind == EVENT_HELD;
        g->ends += ev->kind == EVENT_SOURCE_END;
        if (ev->kind == EVENT_HELD)
                snprintf(g->why, sizeof g->why, "%s", ev->error->text);
}

/* Once a test. */
static inline struct play play_new(enum verdict (*rule)(struct play *, struct plan *, int, struct err *))
{
        struct play g = { .rule = rule };

        signal(SIGXFSZ, SIG_IGN);
        signal(SIGPIPE, SIG_IGN);
        scratch_begin();
        g.config.limits = limits_default;
        g.config.now = 1800000000;
        return g;
}

/* The next run over the same state, with the archives named (paths below the scratch directory), until NULL. */
static inline void play_run(struct play *g, const char *archive, ...)
{
        struct script script = { g, play_decide, play_resume, play_release, play_finish };
        struct run_hooks hooks = { g, g->heard ? g->heard : play_event, NULL };
        static char paths[8][256];
        char root[256], state[256];
        struct ledger *l;
        size_t n = 0;
        va_list ap;

        va_start(ap, archive);
        for (const char *a = archive; a; a = va_arg(ap, const char *)) {
                snprintf(paths[n], sizeof paths[n], "%s%s%s", strcmp(a, "-") ? scratch : "", strcmp(a, "-") ? "/" : "", a);
                g->archives[n] = str_of(paths[n]);
                n++;
        }
        va_end(ap);
        snprintf(root, sizeof root, "%s/root", scratch);
        snprintf(state, sizeof state, "%s/state", scratch);
        g->config.root = str_of(root);
        g->config.archives = g->archives;
        g->config.archive_n = n;
        g->accounts[0] = &g->account;
        g->config.accounts = g->accounts;
        g->config.account_n = g->account.name.n > 0;
        g->order[0] = g->why[0] = '\0';
        g->decided = g->released = g->held = g->settled = g->ends = g->calls = 0;
        g->e = (struct err){ 0 };
        g->ok = false;
        memset(&g->result, 0, sizeof g->result);
        l = ledger_open(state, g->config.dry, &g->e);
        if (!l)
                return;
        g->ok = run_all(&g->config, &script, &hooks, l, &g->result, &g->e);
        CHECK(run_over(l, &g->result, g->ok, &g->e));
        ledger_close(l);
}

/* ---- what a rule does ---- */

static inline bool hash_of_part(void *ctx, uint8_t out[DIGEST_SIZE], struct err *e)
{
        return part_sha256_aside(ctx, out, e);
}

static inline bool play_save(struct plan *p, struct str path, enum on_conflict how, struct err *e)
{
        struct part *part = message_root(p->message);
        struct root *root = run_root(p->run, p->source, e);
        struct effect *f;
        struct str final;
        bool same;

        if (!root || !names_take(run_names(p->run), root, path, how, hash_of_part, part, &final, &same, p->arena, e))
                return false;
        f = plan_add(p, EFFECT_SAVE, &run_config_of(p->run)->limits, e);
        if (!f) {
                names_release(run_names(p->run), root, final);
                return false;
        }
        f->root = root;
        f->path = final;
        f->part = part;
        f->conflict = how;
        f->same = same;
        p->saved_whole = true;
        return true;
}

static inline bool play_save_as(struct plan *p, const char *fmt, int number, struct err *e)
{
        char path[128];

        snprintf(path, sizeof path, "%s%d", fmt, number);
        return play_save(p, arena_str(p->arena, str_of(path)), CONFLICT_NUMBER, e);
}

static inline bool play_deliver(struct plan *p, const char *folder, struct err *e)
{
        struct effect *f = plan_add(p, EFFECT_DELIVER, &run_config_of(p->run)->limits, e);

        if (!f || !(f->root = run_root(p->run, p->source, e)))
                return false;
        f->path = str_of(folder);
        return p->delivered = true;
}

static inline bool play_command(struct plan *p, struct err *e)
{
        static const struct str argv[] = { { "true", 4 } };
        struct effect *f = plan_add(p, EFFECT_COMMAND, &run_config_of(p->run)->limits, e);

        if (!f)
                return false;
        f->argv = argv;
        f->argc = 1;
        return true;
}

/* ---- what there is ---- */

/* Messages from .. from + n - 1, each with about `size` bytes of body. */
static inline void write_mbox(const char *name, int from, int n, size_t size)
{
        struct buf b = BUF_INIT;

        for (int i = from; i < from + n; i++) {
                buf_printf(&b, "From a@x.example Mon Nov 23 05:41:00 2026\nFrom: a@x.example\nSubject: message %d\nMessage-ID: <%d@x>\n\n", i, i);
                for (size_t k = 0; k < size; k += 10)
                        buf_printf(&b, "body%05d\n", i);
                buf_add_str(&b, STR("\n"));
        }
        write_file(name, buf_str(&b));
        buf_free(&b);
}

static inline bool exists(const char *path)
{
        struct stat st;

        return lstat(at(path), &st) == 0;
}

/* Entries of a directory, without . and ..; -1: there is none. */
static inline int entries(const char *path)
{
        DIR *d = opendir(at(path));
        int n = 0;

        if (!d)
                return -1;
        for (struct dirent *i; (i = readdir(d)) != NULL;)
                n += strcmp(i->d_name, ".") != 0 && strcmp(i->d_name, "..") != 0;
        closedir(d);
        return n;
}

static inline void read_whole(const char *path, char *out, size_t n)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? 0 : read(fd, out, n - 1);

        out[got > 0 ? got : 0] = '\0';
        if (fd >= 0)
                close(fd);
}

/* How often message `number` stands, whole, in the files of a directory. */
static inline int times_in(const char *path, int number)
{
        char want[64], file[4608], text[65536], last[32];
        DIR *d = opendir(at(path));
        int n = 0;

        if (!d)
                return 0;
        snprintf(want, sizeof want, "Subject: message %d\n", number);
        snprintf(last, sizeof last, "body%05d\n", number);
        for (struct dirent *i; (i = readdir(d)) != NULL;) {
                if (i->d_name[0] == '.')
                        continue;
                snprintf(file, sizeof file, "%s/%s", at(path), i->d_name);
                read_whole(file, text, sizeof text);
                n += strstr(text, want) != NULL && strstr(text, last) != NULL;
        }
        closedir(d);
        return n;
}

/* Nothing but its lock is left in the spool. */
static inline bool spool_is_empty(void)
{
        return entries("state/spool") == 1;
}

static inline uint64_t marks(unsigned states)
{
        struct err e = { 0 };
        struct ledger *l = ledger_open(at("state"), true, &e);
        uint64_t n = 0;

        if (!l || !ledger_marks_count(l, 0, states, &n, &e))
                printf("marks: %s\n", e.text), test_bad++;
        if (l)
                ledger_close(l);
        return n;
}

/* ---- an account ---- */

struct postbox {
        struct server *server;
        pthread_t thread;
};
static atomic_bool postbox_stop;

static inline bool postbox_stopped(void)
{
        return postbox_stop;
}

static inline void *postbox_serve(void *arg)
{
        struct err e = { 0 };

        return server_run(arg, &e) ? arg : NULL;
}

/* Serves the mbox below the scratch directory, and makes it the play's account. */
static inline bool postbox_open(struct postbox *m, struct play *g, const char *mbox)
{
        struct server_options o = { .user = STR("me"), .password = STR("pw"), .stopped = postbox_stopped };
        struct err e = { 0 };
        struct source *s = open_source(mbox, &e);

        postbox_stop = false;
        m->server = s ? server_new(s, &o, &e) : NULL;
        source_free(s);
        if (!m->server) {
                printf("mailbox: %s\n", e.text);
                return false;
        }
        g->account = (struct account){ .name = STR("work"), .host = STR("127.0.0.1"), .user = STR("me"), .port = server_port(m->server),
                                       .tls = TLS_NONE, .leave = LEAVE_ALWAYS, .inbox = STR("Inbox"), .timeout_ms = 10000,
                                       .password = secret_literal(STR("pw")) };
        return pthread_create(&m->thread, NULL, postbox_serve, m->server) == 0;
}

/* Messages that no session has deleted. */
static inline size_t postbox_left(struct postbox *m)
{
        struct mailbox *box;
        size_t n = 0;

        while (!mailbox_lock(m->server, &box))
                usleep(1000);
        for (size_t i = 0; i < box->n; i++)
                n += !box->mail[i].gone;
        mailbox_unlock(m->server);
        return n;
}

static inline size_t postbox_close(struct postbox *m, struct play *g)
{
        size_t left;

        postbox_stop = true;
        pthread_join(m->thread, NULL);
        left = postbox_left(m);
        server_free(m->server);
        secret_unref(g->account.password);
        g->account.password = NULL; /* a run may yet be refused there */
        return left;
}

#endif
