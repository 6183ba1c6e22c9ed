#include "lua/report.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "core/log.h"
#include "core/mem.h"
#include "core/sys.h"
#include "lua/engine.h"

enum {
        LINES_SHOWN = 8,        /* sources with a progress line of their own */
        PATIENCE_MS = 800,      /* a run shorter than this shows no progress at all */
        WIDTH_DEFAULT = 80,
};

struct report {
        struct report_options o;
        bool terminal, colour;  /* standard error is one; colours are wanted there */
        int64_t began_ms;
        FILE *out;              /* where per-message lines and JSON go: standard output */
        unsigned drawn;         /* progress lines on the screen, the cursor at the first */
        uint64_t decided;
};

/* ---- progress ---- */

void report_clear(struct report *r)
{
        if (r && r->drawn) {
                fputs("\r\033[J", stderr);
                fflush(stderr);
                r->drawn = 0;
        }
}

static void escaped(FILE *f, struct str s, size_t room)
{
        char text[1024];
        size_t n = log_escape(s, text, sizeof text);

        if (n > room) { /* not inside a character */
                n = room;
                while (n > 0 && ((unsigned char)text[n] & 0xc0) == 0x80)
                        n--;
        }
        fwrite(text, 1, n, f);
}

static int width(void)
{
        struct winsize w;

        return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 20 ? w.ws_col : WIDTH_DEFAULT;
}

static void span_words(uint64_t seconds, char *out, size_t n)
{
        if (seconds < 60)
                snprintf(out, n, "%" PRIu64 " s", seconds);
        else if (seconds < 3600)
                snprintf(out, n, "%" PRIu64 ":%02" PRIu64 " min", seconds / 60, seconds % 60);
        else
                snprintf(out, n, "%" PRIu64 ":%02" PRIu64 " h", seconds / 3600, seconds / 60 % 60);
}

/* "  1,200 of 20,000   340/s   55 s left": by bytes where the total is known, which large messages bend less. */
static void progress_text(struct source *s, int64_t ms, char *out, size_t n)
{
        uint64_t total = atomic_load(&s->total_messages), done = atomic_load(&s->done_messages);
        uint64_t bytes = atomic_load(&s->total_bytes), done_bytes = atomic_load(&s->done_bytes);
        double part = bytes && done_bytes ? (double)done_bytes / (double)bytes : total ? (double)done / (double)total : 0;
        char left[32] = "", of[32] = "";

        if (part > 0 && part < 1) {
                size_t at;
                span_words((uint64_t)((double)ms / 1000 * (1 - part) / part + 0.5), left, sizeof left - 8);
                at = strlen(left);
                snprintf(left + at, sizeof left - at, " left");
        }
        if (total)
                snprintf(of, sizeof of, " of %" PRIu64, total);
        snprintf(out, n, "%8" PRIu64 "%s  %.0f/s  %s", done, of, ms > 0 ? (double)done * 1000 / (double)ms : 0.0, left);
}

static void draw(struct report *r, struct source *const *s, size_t n)
{
        int64_t ms = sys_mono_ms() - r->began_ms;
        int room = width() - 1;

        fputs("\r\033[J", stderr);
        r->drawn = 0;
        for (size_t i = 0; i < n && r->drawn < LINES_SHOWN; i++) {
                char text[160];

                if (!s[i])
                        continue;
                progress_text(s[i], ms, text, sizeof text);
                if (r->drawn++)
                        fputc('\n', stderr);
                escaped(stderr, s[i]->name, room > 60 ? (size_t)room - 45 : 15);
                fprintf(stderr, "  %s", text);
        }
        if (r->drawn > 1)
                fprintf(stderr, "\033[%uA", r->drawn - 1);
        fputc('\r', stderr);
        fflush(stderr);
}

static void progress(void *ctx, struct source *const *s, size_t n)
{
        struct report *r = ctx;

        if (r->terminal && !r->o.quiet && sys_mono_ms() - r->began_ms > PATIENCE_MS)
                draw(r, s, n);
}

/* ---- the log ---- */

static void sink(void *ctx, enum log_level level, struct str line)
{
        static const char *const colours[] = { "\033[31m", "\033[33m", "", "\033[2m" };
        static const char *const words[] = { "error: ", "warning: ", "", "debug: " };
        struct report *r = ctx;
        const char *colour = r->colour ? colours[level] : "";

        report_clear(r);
        fprintf(stderr, "mailmill: %s%s%.*s%s\n", colour, words[level], STR_FMT(line), *colour ? "\033[0m" : "");
}

/* ---- events ---- */

static void json_field(struct buf *b, const char *key, struct str value)
{
        buf_printf(b, ",\"%s\":", key);
        if (value.p)
                json_string(b, value);
        else
                buf_add_str(b, STR("null"));
}

static void json_number(struct buf *b, const char *key, uint64_t n)
{
        buf_printf(b, ",\"%s\":%" PRIu64, key, n);
}

static void json_line(struct report *r, struct buf *b)
{
        buf_add_str(b, STR("}\n"));
        if (buf_ok(b, NULL))
                fwrite(b->p, 1, b->n, r->out);
        fflush(r->out);
        buf_free(b);
}

static void json_message(struct buf *b, const struct plan *p)
{
        const struct origin *o = message_origin(p->message);
        const struct addr *from = message_addresses(p->message, STR("From"));

        json_field(b, "source", o->source);
        json_field(b, "account", o->account);
        json_field(b, "uid", o->account.n ? o->uid : STR_NONE);
        json_number(b, "number", o->number);
        json_number(b, "size", message_size(p->message));
        json_field(b, "message_id", message_id(p->message));
        json_field(b, "from", from ? from->addr : STR_NONE);
        json_field(b, "subject", message_subject(p->message));
}

static void json_decided(struct report *r, const struct plan *p)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, "{\"event\":\"%s\"", p->message ? "message" : "finish");
        if (p->message)
                json_message(&b, p);
        if (r->o.dry)
                buf_add_str(&b, STR(",\"dry_run\":true"));
        if (p->discarded)
                buf_add_str(&b, STR(",\"discarded\":true"));
        buf_add_str(&b, STR(",\"effects\":["));
        for (const struct effect *f = p->first; f; f = f->next) {
                if (f != p->first)
                        buf_add_char(&b, ',');
                effect_json(f, &b);
        }
        buf_add_char(&b, ']');
        json_line(r, &b);
}

static void json_held(struct report *r, const struct run_event *ev)
{
        struct buf b = BUF_INIT;
        struct str trace = engine_traceback(ev->plan);

        buf_add_str(&b, STR("{\"event\":\"held\""));
        if (ev->plan->message)
                json_message(&b, ev->plan);
        json_field(&b, "code", str_of(err_code_name(ev->error->code)));
        json_field(&b, "error", str_of(ev->error->text));
        if (trace.n)
                json_field(&b, "traceback", trace);
        buf_printf(&b, ",\"quarantined\":%s", ev->quarantined ? "true" : "false");
        json_line(r, &b);
}

static void json_source_end(struct report *r, const struct run_event *ev)
{
        struct buf b = BUF_INIT;
        struct source *s = ev->source;

        buf_add_str(&b, STR("{\"event\":\"source\""));
        json_field(&b, "source", s ? s->name : STR_NONE);
        json_number(&b, "messages", s ? atomic_load(&s->done_messages) : 0);
        json_number(&b, "skipped", s ? atomic_load(&s->skipped) : 0);
        json_field(&b, "error", ev->error ? str_of(ev->error->text) : STR_NONE);
        json_line(r, &b);
}

static void text_message(FILE *f, const struct plan *p)
{
        const struct origin *o;
        const struct addr *from;

        if (!p->message) {
                fputs("at the end of the run\n", f);
                return;
        }
        o = message_origin(p->message);
        from = message_addresses(p->message, STR("From"));
        escaped(f, o->source, 200);
        fprintf(f, " #%" PRIu64 "  ", o->number);
        escaped(f, from ? from->addr : STR("(no sender)"), 100);
        fputs("  ", f);
        escaped(f, message_subject(p->message), 200);
        fputc('\n', f);
}

static void text_decided(FILE *f, const struct plan *p)
{
        text_message(f, p);
        for (const struct effect *e = p->first; e; e = e->next) {
                struct str words = effect_words(e, p->arena);

                fputs("    ", f);
                escaped(f, words.p ? words : STR("(out of memory)"), 400);
                if (e->rule.n) {
                        fputs("  [", f);
                        escaped(f, e->rule, 80);
                        fputs("]", f);
                }
                fputc('\n', f);
        }
        if (!p->first)
                fputs(p->discarded ? "    discard\n" : p->message ? "    stays where it is\n" : "    nothing\n", f);
}

/* A dry run shows its errors with the message they stopped; otherwise the log has them already. */
static void text_held(struct report *r, const struct run_event *ev)
{
        struct str rest = engine_traceback(ev->plan);

        if (r->o.dry) {
                text_message(stdout, ev->plan);
                fputs("    would be held: ", stdout);
                escaped(stdout, str_of(ev->error->text), 1000);
                fputc('\n', stdout);
        }
        report_clear(r);
        while (rest.n) {
                struct str line = str_take_line(&rest);

                fputs(line.n && line.p[0] == '\t' ? "        " : "    ", stderr);
                escaped(stderr, str_trim(line), 900);
                fputc('\n', stderr);
        }
}

static void decided(struct report *r, const struct plan *p)
{
        r->decided += p->message != NULL;
        if (!p->message && !p->first)
                return;
        if (r->o.json) {
                json_decided(r, p);
        } else if (r->o.dry) {
                report_clear(r);
                text_decided(stdout, p);
        } else if (r->o.verbose) {
                report_clear(r);
                text_decided(stderr, p);
        }
}

static void event(void *ctx, const struct run_event *ev)
{
        struct report *r = ctx;

        switch (ev->kind) {
        case EVENT_DECIDED:
                decided(r, ev->plan);
                break;
        case EVENT_HELD:
                if (r->o.json)
                        json_held(r, ev);
                else
                        text_held(r, ev);
                break;
        case EVENT_SOURCE_END:
                if (r->o.json)
                        json_source_end(r, ev);
                break;
        }
}

struct run_hooks report_hooks(struct report *r)
{
        return (struct run_hooks){ r, event, progress };
}

/* ---- the end ---- */

static void json_end(struct report *r, const struct run_result *res, const struct outbox_result *sent)
{
        struct buf b = BUF_INIT;

        buf_add_str(&b, STR("{\"event\":\"end\""));
        if (r->o.dry)
                buf_add_str(&b, STR(",\"dry_run\":true"));
        json_number(&b, "messages", r->o.dry ? r->decided : res->messages);
        json_number(&b, "delivered", res->delivered);
        json_number(&b, "saved", res->saved);
        json_number(&b, "mails", res->mails);
        json_number(&b, "commands", res->commands);
        json_number(&b, "held", res->held);
        json_number(&b, "quarantined", res->quarantined);
        json_number(&b, "skipped", res->skipped);
        json_number(&b, "undone", res->undone);
        json_number(&b, "waiting", res->waiting);
        json_number(&b, "sources_failed", res->sources_failed);
        if (sent) {
                json_number(&b, "sent", sent->sent);
                json_number(&b, "dead", sent->dead);
        }
        json_line(r, &b);
}

/* ", 3 files saved": nothing for 0. */
static void add_count(struct buf *b, uint64_t n, const char *one, const char *many)
{
        if (n)
                buf_printf(b, "%s%" PRIu64 " %s", b->n ? ", " : "", n, n == 1 ? one : many);
}

static void text_end(struct report *r, const struct run_result *res, const struct outbox_result *sent)
{
        bool worth = res->delivered || res->saved || res->mails || res->commands || res->held || res->undone || res->sources_failed || res->stopped;
        uint64_t messages = r->o.dry ? r->decided : res->messages;
        struct buf b = BUF_INIT;

        if (!worth && !r->terminal && !r->o.verbose && !(r->o.dry && r->decided))
                return;
        add_count(&b, res->delivered, "delivered", "delivered");
        add_count(&b, res->saved, "file saved", "files saved");
        add_count(&b, res->mails, "mail into the outbox", "mails into the outbox");
        add_count(&b, res->commands, "command", "commands");
        if (sent) {
                add_count(&b, sent->sent, "mail sent", "mails sent");
                add_count(&b, sent->dead, "refused for good", "refused for good");
        }
        add_count(&b, res->held, "held", "held");
        add_count(&b, res->undone, "left for the next run", "left for the next run");
        add_count(&b, res->skipped, "skipped", "skipped");
        add_count(&b, res->sources_failed, "source failed", "sources failed");
        if (buf_ok(&b, NULL))
                fprintf(stderr, "mailmill: %" PRIu64 " message%s%s%s%.*s%s\n", messages, messages == 1 ? "" : "s", r->o.dry ? " looked at" : "",
                        b.n ? ": " : "", STR_FMT(buf_str(&b)), res->stopped ? " (stopped)" : r->o.dry ? "; nothing was changed" : "");
        buf_free(&b);
}

void report_end(struct report *r, const struct run_result *res, const struct outbox_result *sent)
{
        report_clear(r);
        fflush(stdout);
        if (r->o.json)
                json_end(r, res, sent);
        else if (!r->o.quiet)
                text_end(r, res, sent);
        if (res->waiting && !r->o.dry)
                log_warn("%" PRIu64 " outward action%s wait%s in the outbox (the flood guard: an archive, or more than an account's run may send by "
                         "itself); `mailmill outbox` shows them, `mailmill outbox release` lets them go", res->waiting,
                         res->waiting == 1 ? "" : "s", res->waiting == 1 ? "s" : "");
}

/* With --json standard output is the events' alone: what a script prints goes to standard error. */
static FILE *take_output(void)
{
        int fd;
        FILE *f;

        fflush(stdout);
        fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
        f = fd < 0 ? NULL : fdopen(fd, "w");
        if (f)
                dup2(STDERR_FILENO, STDOUT_FILENO);
        else if (fd >= 0)
                close(fd);
        return f;
}

bool report_unread(const struct report *r)
{
        return ferror(stdout) || ferror(r->out);
}

struct report *report_new(const struct report_options *o)
{
        struct report *r = mem_zero(sizeof *r);
        const char *term = getenv("TERM");

        if (!r)
                return NULL;
        r->o = *o;
        r->out = o->json ? take_output() : stdout;
        if (!r->out) {
                mem_free(r);
                return NULL;
        }
        r->terminal = isatty(STDERR_FILENO) && term && strcmp(term, "dumb") != 0;
        r->colour = r->terminal && !getenv("NO_COLOR");
        r->began_ms = sys_mono_ms();
        log_set_sink(sink, r);
        return r;
}

void report_free(struct report *r)
{
        if (!r)
                return;
        report_clear(r);
        log_set_sink(NULL, NULL);
        if (r->out != stdout)
                fclose(r->out);
        mem_free(r);
}
