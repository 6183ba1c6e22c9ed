/* The engine through run_all: scripts over sample mail, and what their plans say. */
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "core/buf.h"
#include "core/log.h"
#include "core/mem.h"
#include "lua/engine.h"
#include "tests/unit/test.h"

/* One run: a directory of its own, an mbox of three messages, and what happened as text. */
struct bench {
        char dir[64];
        struct buf happened; /* "1 deliver A|2 held: …|" */
        struct buf trace, logged;
        struct run_result result;
        struct err e;
        bool loaded, ran;
        bool dry;
};

static void path_in(const struct bench *b, const char *name, char out[256])
{
        snprintf(out, 256, "%s/%s", b->dir, name);
}

static void write_file(const struct bench *b, const char *name, const char *text, mode_t mode)
{
        char path[256];
        FILE *f;

        path_in(b, name, path);
        f = fopen(path, "w");
        if (!f)
                abort();
        fputs(text, f);
        fclose(f);
        chmod(path, mode);
}

static char *read_file(const struct bench *b, const char *name)
{
        static char text[65536];
        char path[256];
        size_t n = 0;
        FILE *f;

        path_in(b, name, path);
        f = fopen(path, "r");
        if (f) {
                n = fread(text, 1, sizeof text - 1, f);
                fclose(f);
        }
        text[n] = '\0';
        return text;
}

static const char mail[] =
        "From a@x.example Mon Nov 23 05:41:00 2026\n"
        "From: Ann <ann@x.example>\nTo: me@y.example\nSubject: first\nMessage-ID: <1@x.example>\n"
        "Date: Mon, 23 Nov 2026 05:41:00 +0000\n\none\n\n"
        "From b@x.example Mon Nov 23 05:42:00 2026\n"
        "From: \"Bob; B\" <bob@Bank.Example>\nTo: me@y.example\nSubject: second\nDate: Tue, 24 Nov 2026 05:41:00 +0000\n"
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n"
        "--b\nContent-Type: text/plain\n\ntwo\n"
        "--b\nContent-Type: application/pdf; name=\"../bill.pdf\"\nContent-Disposition: attachment; filename=\"../bill.pdf\"\n"
        "Content-Transfer-Encoding: base64\n\nJVBERi0xLjQK\n--b--\n\n"
        "From c@x.example Mon Nov 23 05:43:00 2026\n"
        "From: carol@x.example\nTo: me@y.example\nSubject: third\nDate: Wed, 25 Nov 2026 05:41:00 +0000\nX-Mailmill-Action: 00\n\nthree\n\n";

static void sink(void *ctx, enum log_level level, struct str line)
{
        struct bench *b = ctx;

        buf_add_str(&b->logged, line);
        buf_add_char(&b->logged, '\n');
}

static void heard(void *ctx, const struct run_event *ev)
{
        struct bench *b = ctx;
        struct arena *a = arena_new(0);

        if (!a || !ev->plan) {
                arena_free(a);
                return;
        }
        if (ev->plan->message)
                buf_printf(&b->happened, "%d", (int)message_origin(ev->plan->message)->number);
        else
                buf_add_str(&b->happened, STR("end"));
        if (ev->kind == EVENT_HELD) {
                buf_printf(&b->happened, " held %s: %s", err_code_name(ev->error->code), ev->error->text);
                buf_add_str(&b->trace, engine_traceback(ev->plan));
        }
        for (const struct effect *f = ev->plan->first; ev->kind == EVENT_DECIDED && f; f = f->next) {
                buf_add_char(&b->happened, ' ');
                buf_add_str(&b->happened, effect_words(f, a));
                if (f->rule.n)
                        buf_printf(&b->happened, " (%.*s)", STR_FMT(f->rule));
                buf_add_char(&b->happened, ';');
        }
        buf_add_char(&b->happened, '|');
        arena_free(a);
}

static struct bench begin(void)
{
        struct bench b = { .dir = "/tmp/mailmill-engine-XXXXXX" };

        if (!mkdtemp(b.dir))
                abort();
        write_file(&b, "in.mbox", mail, 0600);
        buf_init(&b.happened, 0);
        buf_init(&b.trace, 0);
        buf_init(&b.logged, 0);
        return b;
}

/* May be called again: a second run on the same state. */
static void run_script(struct bench *b, const char *script)
{
        struct engine_options o = { .now = 1795412345 };
        struct run_hooks hooks = { .ctx = b, .event = heard };
        struct run_config c = { .dry = b->dry };
        struct engine *en;
        struct ledger *l;
        struct script s;
        char path[256], state[256], mbox[256], root[256];
        struct str archive;

        buf_clear(&b->happened);
        buf_clear(&b->trace);
        buf_clear(&b->logged);
        b->loaded = b->ran = false;
        b->e = (struct err){ 0 };
        write_file(b, "script.lua", script, 0600);
        path_in(b, "script.lua", path);
        path_in(b, "state", state);
        path_in(b, "in.mbox", mbox);
        path_in(b, "root", root);
        log_set_sink(sink, b);
        en = engine_new(&o, &b->e);
        b->loaded = en && engine_load_file(en, path, &b->e);
        if (b->loaded && engine_config(en, &c, &b->e)) {
                archive = str_of(mbox);
                c.archives = &archive;
                c.archive_n = 1;
                c.account_n = 0;
                c.root = str_of(root);
                s = engine_script(en);
                l = ledger_open(state, false, &b->e);
                b->ran = l && run_all(&c, &s, &hooks, l, &b->result, &b->e);
                ledger_close(l);
        }
        for (size_t i = 0; en && i < engine_problem_count(en); i++)
                buf_printf(&b->happened, "%.*s\n", STR_FMT(engine_problem(en, i)));
        engine_free(en);
        log_set_sink(NULL, NULL);
        buf_add_char(&b->happened, '\0'), b->happened.n--;
        buf_add_char(&b->trace, '\0'), b->trace.n--;
        buf_add_char(&b->logged, '\0'), b->logged.n--;
}

static void end(struct bench *b)
{
        char command[128];

        snprintf(command, sizeof command, "rm -rf '%s'", b->dir);
        if (system(command) != 0)
                abort();
        buf_free(&b->happened);
        buf_free(&b->trace);
        buf_free(&b->logged);
}

#define HAS(b, text) (strstr((b).happened.p, (text)) ? 1 : (printf("%s:%d: no \"%s\" in \"%s\"\n", __FILE__, __LINE__, (text), (b).happened.p), test_bad++, 0))
#define HAS_NOT(b, text) (!strstr((b).happened.p, (text)) ? 1 : (printf("%s:%d: \"%s\" in \"%s\"\n", __FILE__, __LINE__, (text), (b).happened.p), test_bad++, 0))

TEST(subjects_through_run_all)
{
        struct bench b = begin();

        run_script(&b, "seen = ''\n"
                       "mail.on_message(function(m) seen = seen .. m.subject .. ',' end)\n"
                       "mail.on_finish(function(run) log.error(seen, run.messages) end)\n");
        CHECK(b.loaded);
        CHECK(b.ran);
        CHECK(strstr(b.logged.p, "first,second,third,") != NULL);
        CHECK(b.result.messages == 3);
        end(&b);
}

TEST(saves_and_delivers)
{
        struct bench b = begin();

        run_script(&b, "mail.rule('Bills', { from = '*@bank.example' }, function(m)\n"
                       "  m.vars.n = 'a/b'\n"
                       "  for part in m:attachments '*.pdf' do\n"
                       "    log.error(part:save '{from.domain}/{date:%Y-%m}/{vars.n} {name}')\n"
                       "    part:save '{stem}.{ext} {index} {detected.ext}'\n"
                       "  end\n"
                       "  m:deliver('Archive/{from.user}', { flags = 'S', detach = true, headers = { ['X-Label'] = 'bank' } })\n"
                       "  m:stop()\n"
                       "end)\n"
                       "mail.on_message(function(m) m:save '{subject|none}.eml' end)\n");
        CHECK(b.loaded && b.ran);
        HAS(b, "2 save bank.example/2026-11/a_b bill.pdf (Bills); save bill.pdf 2 pdf (Bills); deliver Archive/bob (Bills);|");
        HAS(b, "1 save first.eml (on_message);|");
        CHECK(strstr(b.logged.p, "/root/bank.example/2026-11/a_b bill.pdf") != NULL);
        CHECK_STR(str_of(read_file(&b, "root/bank.example/2026-11/a_b bill.pdf")), "%PDF-1.4\n");
        CHECK(b.result.saved == 4);
        end(&b);
}

TEST_MAIN
