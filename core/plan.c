#include "core/plan.h"

#include <stdio.h>

#include "core/charset.h"
#include "core/digest.h"
#include "core/map.h"
#include "core/mem.h"
#include "core/sys.h"

/* What a plan may hold besides the message: names, addresses, texts of new mails. */
enum { PLAN_ARENA_MAX = 16 << 20 };

struct plan *plan_new(struct message *m, struct source *s)
{
        struct arena *a = arena_new(PLAN_ARENA_MAX);
        struct plan *p = a ? arena_alloc(a, sizeof *p) : NULL;

        if (!p) {
                arena_free(a);
                return NULL;
        }
        p->arena = a;
        p->message = m;
        p->source = s;
        return p;
}

void plan_free(struct plan *p)
{
        if (p)
                arena_free(p->arena);
}

static bool count_effect(struct plan *p, enum effect_kind kind, const struct limits *lim, struct err *e)
{
        if (kind == EFFECT_SAVE) {
                if (p->saves >= lim->saves)
                        return err_set(e, ERR_LIMIT, "more than %u saves for one message (mail.limits { saves = … })", lim->saves);
                p->saves++;
                return true;
        }
        if (p->outward >= lim->deliveries)
                return err_set(e, ERR_LIMIT, "more than %u deliveries and outward actions for one message (mail.limits { deliveries = … })",
                               lim->deliveries);
        if (kind == EFFECT_MAIL && p->forwards >= lim->forwards)
                return err_set(e, ERR_LIMIT, "more than %u new mails for one message (mail.limits { forwards = … })", lim->forwards);
        p->outward++;
        p->forwards += kind == EFFECT_MAIL;
        return true;
}

/* The script's doing, where the plan is nearly full; else the machine's. */
static bool no_room(const struct plan *p, size_t n, struct err *e)
{
        if (arena_used(p->arena) + n > PLAN_ARENA_MAX / 4 * 3)
                return err_set(e, ERR_LIMIT, "what was decided for one message takes more than %d MiB", PLAN_ARENA_MAX / 4 * 3 >> 20);
        return err_nomem(e);
}

struct effect *plan_add(struct plan *p, enum effect_kind kind, const struct limits *lim, struct err *e)
{
        struct effect *f;

        if (!count_effect(p, kind, lim, e))
                return NULL;
        f = arena_alloc(p->arena, sizeof *f);
        if (!f) {
                no_room(p, sizeof *f, e);
                return NULL;
        }
        f->kind = kind;
        f->place = ++p->count;
        f->spool_fd = -1;
        f->staged.fd = -1;
        if (p->last)
                p->last->next = f;
        else
                p->first = f;
        p->last = f;
        return f;
}

bool plan_keeps(const struct plan *p)
{
        return p->delivered || p->saved_whole || p->discarded;
}

uint64_t plan_store_hash(struct str store, struct str key)
{
        return map_hash(store) * 31 + map_hash(key);
}

bool plan_store(struct plan *p, struct str store, struct str key, struct str value, int64_t expires, struct err *e)
{
        struct store_change *c = arena_alloc(p->arena, sizeof *c);

        if (!c)
                return no_room(p, sizeof *c, e);
        *c = (struct store_change){ .next = p->changes, .store = arena_str(p->arena, store), .key = arena_str(p->arena, key),
                                    .expires = expires, .hash = plan_store_hash(store, key) };
        if (value.p)
                c->value = arena_str(p->arena, value);
        if (!c->store.p || !c->key.p || (value.p && !c->value.p))
                return no_room(p, store.n + key.n + value.n, e);
        if (p->changes)
                p->changes->newer = c;
        else
                p->oldest = c;
        p->changes = c;
        return true;
}

const struct store_change *plan_changed(const struct plan *p, struct str store, struct str key)
{
        uint64_t hash = p->changes ? plan_store_hash(store, key) : 0;

        for (const struct store_change *c = p->changes; c; c = c->next)
                if (c->hash == hash && str_eq(c->key, key) && str_eq(c->store, store))
                        return c;
        return NULL;
}

/* The id is the same however often the message is decided again: account, the message's bytes, and the place in its plan. on_finish has
 * no message: each run's mails are new ones. */
static bool action_id(struct plan *p, struct effect *f, struct err *e)
{
        uint8_t seed[DIGEST_SIZE] = { 0 }, out[DIGEST_SIZE];
        char hex[65], place[32];
        struct digest *d = digest_new();

        if (!d)
                return err_nomem(e);
        if (p->message) {
                if (!message_hash(p->message, seed, e)) {
                        digest_free(d);
                        return false;
                }
                struct str account = message_origin(p->message)->account;
                digest_add(d, account.p, account.n);
        } else {
                sys_random(seed, sizeof seed);
        }
        digest_add(d, seed, sizeof seed);
        digest_add(d, place, (size_t)snprintf(place, sizeof place, "/%u", f->place));
        digest_end(d, out);
        digest_hex(out, hex);
        f->action = arena_str(p->arena, str_make(hex, 32));
        return f->action.p || err_nomem(e);
}

bool plan_actions(struct plan *p, struct err *e)
{
        for (struct effect *f = p->first; f; f = f->next) {
                if (f->kind != EFFECT_MAIL && f->kind != EFFECT_COMMAND)
                        continue;
                if (!action_id(p, f, e))
                        return false;
                if (f->compose)
                        f->compose->action = f->action;
        }
        return true;
}

static void join(struct buf *b, const struct str *list, size_t n, const char *between)
{
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_add_str(b, str_of(between));
                buf_add_str(b, list[i]);
        }
}

struct str effect_words(const struct effect *f, struct arena *a)
{
        struct buf b = BUF_INIT;
        struct str out;

        switch (f->kind) {
        case EFFECT_DELIVER:
                buf_printf(&b, "deliver %.*s%s", STR_FMT(f->path), f->implicit ? " (inbox)" : "");
                break;
        case EFFECT_SAVE:
                buf_printf(&b, "save %.*s%s", STR_FMT(f->path), f->same ? " (already there)" : "");
                break;
        case EFFECT_MAIL:
                buf_printf(&b, "%s to ", f->verb);
                join(&b, f->recipients, f->recipient_n, ", ");
                break;
        case EFFECT_COMMAND:
                buf_add_str(&b, STR("run_after "));
                join(&b, f->argv, f->argc, " ");
                break;
        }
        out = arena_str(a, buf_str(&b));
        buf_free(&b);
        return out;
}

bool json_string(struct buf *out, struct str s)
{
        buf_add_char(out, '"');
        while (s.n > 0) {
                uint32_t cp;
                char put[4];
                size_t n = utf8_next(s, &cp);

                if (cp == '"' || cp == '\\')
                        buf_printf(out, "\\%c", (char)cp);
                else if (cp < 0x20 || cp == 0x7f)
                        buf_printf(out, "\\u%04x", (unsigned)cp);
                else
                        buf_add(out, put, utf8_put(cp, put));
                s = str_from(s, n);
        }
        return buf_add_char(out, '"');
}

static void json_list(struct buf *out, const char *key, const struct str *list, size_t n)
{
        buf_printf(out, ",\"%s\":[", key);
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_add_char(out, ',');
                json_string(out, list[i]);
        }
        buf_add_char(out, ']');
}

static void json_pair(struct buf *out, const char *key, struct str value)
{
        buf_printf(out, ",\"%s\":", key);
        json_string(out, value);
}

bool effect_json(const struct effect *f, struct buf *out)
{
        static const char *const names[] = { "deliver", "save", "mail", "run_after" };

        buf_printf(out, "{\"effect\":\"%s\"", f->kind == EFFECT_MAIL ? f->verb : names[f->kind]);
        if (f->kind == EFFECT_DELIVER)
                json_pair(out, "folder", f->path);
        if (f->kind == EFFECT_SAVE)
                json_pair(out, "path", f->path);
        if (f->root)
                json_pair(out, "root", root_path(f->root));
        if (f->kind == EFFECT_SAVE && f->part)
                json_pair(out, "part", part_path(f->part));
        if (f->kind == EFFECT_MAIL)
                json_list(out, "to", f->recipients, f->recipient_n);
        if (f->kind == EFFECT_COMMAND)
                json_list(out, "argv", f->argv, f->argc);
        if (f->implicit)
                buf_add_str(out, STR(",\"implicit\":true"));
        if (f->same)
                buf_add_str(out, STR(",\"same\":true"));
        if (f->rule.n)
                json_pair(out, "rule", f->rule);
        return buf_add_char(out, '}');
}
