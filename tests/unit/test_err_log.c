#include <errno.h>
#include <sysexits.h>

#include "core/err.h"
#include "core/log.h"
#include "tests/unit/test.h"

static struct str escape(struct str s, char out[64])
{
        return str_make(out, log_escape(s, out, 64));
}

TEST(escape)
{
        char out[64];

        CHECK_STR(escape(STR("plain \xc3\xa9 \\"), out), "plain \xc3\xa9 \\");
        CHECK_STR(escape(STR("\x1b[2J\a\r\n\t\0\x7f"), out), "\\x1b[2J\\x07\\x0d\\x0a\\x09\\x00\\x7f"); /* P04 */
        CHECK_STR(escape(STR("\xc2\x85\xc2\x9b"), out), "\\u{85}\\u{9b}");                        /* C1 */
        CHECK_STR(escape(STR("\xe2\x80\xae" "fdp.exe"), out), "\\u{202e}fdp.exe");
        CHECK_STR(escape(STR("\xe2\x81\xa6\xd8\x9c\xe2\x80\xa8"), out), "\\u{2066}\\u{61c}\\u{2028}");
        CHECK_STR(escape(STR("\xff\xc0\xaf\xe2\x82"), out), "\\xff\\xc0\\xaf\\xe2\\x82");
        CHECK_STR(escape(STR_NONE, out), "");
}

TEST(escape_never_cuts_a_form)
{
        char out[8];
        struct str s = STR("a\x1b\xe2\x82\xac" "b"); /* a, \x1b, EURO SIGN, b */

        memset(out, 'X', sizeof out);
        CHECK(log_escape(s, out, 0) == 0 && out[0] == 'X');
        CHECK(log_escape(s, out, 1) == 0 && out[0] == '\0');
        CHECK(log_escape(s, out, 5) == 1);
        CHECK(log_escape(s, out, 6) == 5 && strcmp(out, "a\\x1b") == 0);
        CHECK(log_escape(s, out, 8) == 5);
}

TEST(escape_twice_is_once)
{
        char one[64], two[64];
        struct str s = escape(STR("\x1b\xff\xe2\x80\xae\\"), one);

        CHECK_BYTES(escape(s, two), s);
}

TEST(err_texts)
{
        struct err e;

        CHECK(!err_set(&e, ERR_PROTO, "line of %d bytes: %.*s", 3, STR_FMT(STR("a\x1b\n"))));
        CHECK(e.code == ERR_PROTO && e.sys == 0);
        CHECK_STR(str_of(e.text), "line of 3 bytes: a\\x1b\\x0a");
        CHECK(!err_in(&e, "account %s", "w\tk"));
        CHECK_STR(str_of(e.text), "account w\\x09k: line of 3 bytes: a\\x1b\\x0a");
        CHECK(e.code == ERR_PROTO);
        CHECK(!err_set(NULL, ERR_IO, "x") && !err_in(NULL, "x") && !err_sys(NULL, ERR_IO, EIO, "x"));
        CHECK(!err_nomem(&e) && e.code == ERR_NOMEM);
        CHECK_STR(str_of(e.text), "out of memory");
}

TEST(err_from_errno)
{
        static const struct {
                int sys;
                enum err_code want;
        } rows[] = { { ENOSPC, ERR_FULL }, { EDQUOT, ERR_FULL }, { ENOENT, ERR_ABSENT }, { EEXIST, ERR_EXISTS },
                     { ENOMEM, ERR_NOMEM }, { EIO, ERR_IO }, { EACCES, ERR_IO } };
        struct err e;

        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
                CHECK(!err_sys(&e, ERR_IO, rows[i].sys, "opening %s", "x"));
                CHECK(e.code == rows[i].want && e.sys == rows[i].sys);
        }
        CHECK_STR(str_of(e.text), "opening x: Permission denied");
}

TEST(err_long_texts)
{
        static char big[5000];
        struct err e;

        memset(big, 'x', sizeof big - 1);
        err_set(&e, ERR_IO, "%s", big);
        CHECK(strlen(e.text) == ERR_TEXT_MAX - 1);
        err_in(&e, "%s", big);
        CHECK(strlen(e.text) == ERR_TEXT_MAX - 1);
        err_sys(&e, ERR_IO, EIO, "%s", big);
        CHECK(str_ends(str_of(e.text), STR("x: Input/output error"))); /* the reason is not what gets cut */
        memset(big, '\x1b', sizeof big - 1);
        err_set(&e, ERR_IO, "%s", big);
        CHECK(strlen(e.text) == (ERR_TEXT_MAX - 1) / 4 * 4 && str_ends(str_of(e.text), STR("\\x1b")));
}

TEST(err_worse_is_what_to_act_on)
{
        static const enum err_code order[] = { ERR_NONE, ERR_TEMP, ERR_NET, ERR_REFUSED, ERR_TLS, ERR_AUTH, ERR_FULL };

        for (size_t i = 0; i < sizeof order / sizeof *order; i++)
                for (size_t j = 0; j < sizeof order / sizeof *order; j++)
                        CHECK(err_worse(order[i], order[j]) == order[i > j ? i : j]);
        CHECK(err_worse(ERR_NET, ERR_TIMEOUT) == ERR_NET && err_worse(ERR_TIMEOUT, ERR_NET) == ERR_TIMEOUT);
}

TEST(err_every_code_has_a_name_and_an_exit)
{
        for (int c = ERR_NONE; c <= ERR_SCRIPT; c++) {
                CHECK(err_code_name((enum err_code)c) && strcmp(err_code_name((enum err_code)c), "unknown") != 0);
                CHECK((err_exit_code((enum err_code)c) == 0) == (c == ERR_NONE));
        }
        CHECK(err_exit_code(ERR_NET) == EX_TEMPFAIL && err_exit_code(ERR_AUTH) == EX_NOPERM);
        CHECK_STR(str_of(err_code_name(ERR_NOMEM)), "nomem");
}

struct seen {
        int n;
        enum log_level level;
        size_t len;
        char text[64];
};

static void note(void *ctx, enum log_level level, struct str line)
{
        struct seen *s = ctx;

        s->n++;
        s->level = level;
        s->len = line.n;
        snprintf(s->text, sizeof s->text, "%.*s", (int)(line.n < 63 ? line.n : 63), line.p);
}

TEST(log_lines)
{
        struct seen s = { 0 };

        log_set_sink(note, &s);
        CHECK(log_get_level() == LOG_WARN);
        log_info("not shown");
        log_debug("not shown");
        CHECK(s.n == 0);
        log_warn("from %s", "x\n\x1b[31m"); /* L06 */
        CHECK(s.n == 1 && s.level == LOG_WARN);
        CHECK_STR(str_of(s.text), "from x\\x0a\\x1b[31m");
        log_set_level(LOG_DEBUG);
        log_debug("%d", 1);
        log_info("%d", 2);
        log_error("%d", 3);
        CHECK(s.n == 4 && s.level == LOG_ERROR);
        log_line(LOG_INFO, STR("a\0b"));
        CHECK_STR(str_of(s.text), "a\\x00b");
        log_set_level(LOG_WARN);
        log_set_sink(NULL, NULL);
}

TEST(log_line_is_cut) /* L06 */
{
        static char big[100000];
        struct seen s = { 0 };

        memset(big, 'y', sizeof big - 1);
        log_set_sink(note, &s);
        log_error("%s", big);
        CHECK(s.len == 8191);
        log_line(LOG_ERROR, str_make(big, sizeof big - 1));
        CHECK(s.len == 8191);
        log_set_sink(NULL, NULL);
}

TEST_MAIN
