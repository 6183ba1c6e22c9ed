/* The listing: STAT (a hint), LIST and UIDL, matched by number. Complete or not at all. */
#include "core/log.h"
#include "core/pop3_int.h"
#include "core/sasl.h"

enum {
        ENTRIES_MAX = 1 << 20,          /* messages of one listing */
        LISTING_LINE_MAX = 64 << 10,
        NUMBER_MAX = 0x7fffffff,
};

/* "A message number that is not 1 to 2^31-1, a number given twice" makes the whole listing worthless. */
static bool take_number(struct str *rest, uint32_t *number, struct err *e)
{
        struct str line = *rest, word = str_take(rest, ' ');
        uint64_t n;

        if (!str_to_u64(word, NUMBER_MAX, &n) || n == 0)
                return err_set(e, ERR_PROTO, "a line without a message number: \"%.*s\"", STR_FMT(str_first(line, SAID_MAX)));
        *number = (uint32_t)n;
        return true;
}

/* Calls f for each line of a multi-line answer. */
static bool each_line(struct pop3 *p, bool (*f)(void *ctx, struct str line, struct err *e), void *ctx, struct err *e)
{
        uint64_t bytes = 0;

        for (size_t n = 0;; n++) {
                struct str line;

                if (!lines_read(p->l, LISTING_LINE_MAX, &line, NULL, e))
                        return false;
                if (str_eq(line, STR(".")))
                        return true;
                bytes += line.n + 2;
                if (n == ENTRIES_MAX || bytes > LISTING_BYTES_MAX)
                        return err_set(e, ERR_LIMIT, "a listing of more than %d messages or %d MiB", ENTRIES_MAX, LISTING_BYTES_MAX >> 20);
                if (!f(ctx, str_trim(line), e))
                        return false;
        }
}

static bool list_line(void *ctx, struct str line, struct err *e)
{
        uint64_t size = 0;
        uint32_t number;
        struct str word;

        if (!take_number(&line, &number, e))
                return false;
        line = str_trim(line);
        word = str_take(&line, ' ');
        if (!str_to_u64(word, INT64_MAX, &size))
                size = 0; /* a bad size spoils only this entry's hint */
        return listing_add(ctx, number, size, e);
}

static bool uidl_line(void *ctx, struct str line, struct err *e)
{
        uint32_t number;

        return take_number(&line, &number, e) && listing_uid(ctx, number, str_trim(line), e);
}

/* UIDL is asked for whether announced or not. */
static bool read_uidl(struct pop3 *p, struct pop3_listing *l, struct err *e)
{
        size_t n = pop3_listing_count(l), found, too_long;
        struct reply r;

        if (!pop3_status(p, &r, e))
                return false;
        if (!r.ok) {
                enum err_code code = pop3_refusal_code(r.text, ERR_NONE);

                bool none = code == ERR_NONE || code == ERR_REFUSED;

                return none ? listing_end(l, false, e) : pop3_refused(&r, ERR_TEMP, e, "UIDL");
        }
        if (!each_line(p, uidl_line, l, e))
                return false;
        found = listing_found(l, &too_long);
        if (found == 0 && n > 0)
                return err_set(e, ERR_PROTO, "UIDL is empty, but LIST has %zu messages: the list is incomplete", n);
        if (too_long > 0)
                log_warn("pop3: %zu messages have a UID that is too long to be kept: they are told apart by their headers", too_long);
        return listing_end(l, true, e);
}

static bool ask_stat(struct pop3 *p, uint64_t *count, bool *known, struct err *e)
{
        struct reply r;
        struct str rest;

        if (!pop3_status(p, &r, e))
                return false;
        rest = r.text;
        *known = r.ok && str_to_u64(str_take(&rest, ' '), UINT32_MAX, count);
        return true;
}

static bool read_list(struct pop3 *p, struct pop3_listing *l, struct err *e)
{
        struct reply r;

        if (!pop3_status(p, &r, e))
                return false;
        if (!r.ok)
                return pop3_refused(&r, ERR_TEMP, e, "LIST");
        return each_line(p, list_line, l, e) && listing_sort(l, e);
}

/* Sends the command unless it went out with those before. */
static bool due(struct pop3 *p, const char *command, struct err *e)
{
        if (!p->capa.pipelining && (!pop3_send(p, e, "%s", command) || !lines_flush(p->l, e)))
                return false;
        lines_answer_begins(p->l);
        return true;
}

static bool list_all(struct pop3 *p, struct pop3_listing *l, struct err *e)
{
        uint64_t count = 0;
        size_t n;
        bool known = false;

        if (p->capa.pipelining && (!lines_write(p->l, STR("STAT\r\nLIST\r\nUIDL\r\n"), e) || !lines_flush(p->l, e)))
                return false;
        if (!due(p, "STAT", e) || !ask_stat(p, &count, &known, e) || !due(p, "LIST", e) || !read_list(p, l, e))
                return false;
        n = pop3_listing_count(l);
        if (known && count > 0 && n == 0)
                return err_set(e, ERR_PROTO, "LIST is empty, but STAT says %llu messages: the list is incomplete",
                               (unsigned long long)count);
        if (known && count != n)
                log_info("pop3: STAT says %llu messages, LIST has %zu", (unsigned long long)count, n);
        return due(p, "UIDL", e) && read_uidl(p, l, e);
}

struct pop3_listing *pop3_list(struct pop3 *p, struct err *e)
{
        struct pop3_listing *l = listing_new(e);

        if (l && list_all(p, l, e))
                return l;
        pop3_listing_free(l);
        if (p->who)
                sasl_hide(e, p->who->user, p->who->password);
        return err_in(e, "listing the mailbox"), NULL;
}
