/* Commands out, replies in: RFC 5321 4.2. A reply is read strictly where it could put us out of step, and leniently in its words. */
#include "core/smtp_int.h"

#include <stdarg.h>
#include <stdio.h>

#include "core/sasl.h"

enum {
        LINE_MAX_BYTES = 2048, /* RFC 5321 4.5.3.1.5 allows 512; explanations with URLs are longer */
        LINES_MAX = 128,       /* of one reply: the longest EHLO answers have some 30 */
        COMMAND_MAX = 1200,    /* an address of 254 bytes and its parameters; an EHLO name of 255 */
};

bool smtp_is_word(struct str s)
{
        for (size_t i = 0; i < s.n; i++)
                if (s.p[i] <= ' ' || s.p[i] >= 0x7f || s.p[i] == '<' || s.p[i] == '>')
                        return false;
        return s.n > 0;
}

bool smtp_say(struct smtp *s, struct err *e, const char *fmt, ...)
{
        char line[COMMAND_MAX];
        va_list ap;
        int n;

        va_start(ap, fmt);
        n = vsnprintf(line, sizeof line - 2, fmt, ap);
        va_end(ap);
        if (n < 0 || (size_t)n >= sizeof line - 2)
                return err_set(e, ERR_USAGE, "a command longer than %d bytes", COMMAND_MAX);
        memcpy(line + n, "\r\n", 2);
        if (lines_write(s->l, str_make(line, (size_t)n + 2), e))
                return true;
        s->over = true;
        return false;
}

/* RFC 5321 4.2: Reply-code = %x32-35 %x30-35 %x30-39; servers use more second digits than that. */
static bool parse_line(struct str line, int *code, bool *more, struct str *text)
{
        for (size_t i = 0; i < 3; i++)
                if (line.n < 3 || !ascii_is_digit(line.p[i]))
                        return false;
        if (line.p[0] < '2' || line.p[0] > '5' || (line.n > 3 && line.p[3] != ' ' && line.p[3] != '-'))
                return false;
        *code = (line.p[0] - '0') * 100 + (line.p[1] - '0') * 10 + (line.p[2] - '0');
        *more = line.n > 3 && line.p[3] == '-';
        *text = str_trim(str_from(line, 4));
        for (size_t i = 0; i < text->n; i++)
                if ((unsigned char)text->p[i] < ' ' && text->p[i] != '\t')
                        return false;
        return true;
}

/* The first ANSWER_MAX bytes are enough for a person. */
static void keep(struct smtp *s, struct str text)
{
        if (s->text.n >= ANSWER_MAX || text.n == 0)
                return;
        buf_add_char(&s->text, ' ');
        buf_add_str(&s->text, str_first(text, ANSWER_MAX - s->text.n));
}

static bool read_reply(struct smtp *s, void (*each)(struct smtp *s, struct str text), struct err *e)
{
        struct str line, text;
        bool more = true;

        buf_clear(&s->text);
        for (int n = 0; more; n++) {
                if (n == LINES_MAX)
                        return err_set(e, ERR_PROTO, "a reply of more than %d lines", LINES_MAX);
                if (!lines_read(s->l, LINE_MAX_BYTES, &line, NULL, e))
                        return false;
                if (!parse_line(line, &s->code, &more, &text))
                        return err_set(e, ERR_PROTO, "\"%.*s\" is no SMTP reply", STR_FMT(str_first(line, 200))),
                               sasl_hide(e, s->h->user, s->h->password), false;
                if (n == 0)
                        buf_printf(&s->text, "%03d", s->code);
                keep(s, text);
                if (each)
                        each(s, text);
        }
        if (s->text.n >= 3) { /* were the codes to differ, the last one counts */
                s->text.p[0] = (char)('0' + s->code / 100);
                s->text.p[1] = (char)('0' + s->code / 10 % 10);
                s->text.p[2] = (char)('0' + s->code % 10);
        }
        if (s->code != 334 && s->text.n > 3) /* but for a challenge: it is an answer to be kept, and may repeat our last one */
                sasl_star(s->text.p + 3, s->text.n - 3, s->h->user, s->h->password);
        return buf_ok(&s->text, e);
}

bool smtp_goes_on(const struct smtp *s, struct err *e)
{
        return !s->h->stop || !atomic_load(s->h->stop) || err_set(e, ERR_STOPPED, "stopped");
}

/* Once it is to stop, nothing more is asked; but what ends a mail or the session is worth its answer. */
bool smtp_hear(struct smtp *s, int ms, void (*line)(struct smtp *s, struct str text), struct err *e)
{
        bool ok;

        s->code = 0;
        lines_set_idle(s->l, s->h->timeout_ms > 0 && ms != WAIT_QUIT ? s->h->timeout_ms : ms);
        lines_answer_begins(s->l);
        ok = (ms == WAIT_DOT || ms == WAIT_QUIT || smtp_goes_on(s, e)) && read_reply(s, line, e);
        s->over |= !ok || s->code == 421;
        return ok;
}

bool smtp_said_no(struct smtp *s, enum err_code permanent, struct err *e, const char *to)
{
        enum err_code code = smtp_class(s) == 4 ? ERR_TEMP : smtp_class(s) == 5 ? permanent : ERR_PROTO;

        s->over |= code == ERR_PROTO;
        return err_set(e, code, "%s: the server said \"%.*s\"", to, STR_FMT(buf_str(&s->text)));
}
