/* Prints how the core reads Content-Type and Content-Disposition fields: one field a line on standard input, its raw value in
 * hexadecimal; for each a line of JSON with value and parameters. For tests/mail/vectors: Lua has no question for a parameter as such. */
#include "core/buf.h"
#include "core/mem.h"
#include "core/params.h"

#include <stdio.h>
#include <stdlib.h>

static void print_string(struct str s)
{
        putchar('"');
        for (size_t i = 0; i < s.n; i++) {
                unsigned char c = (unsigned char)s.p[i];

                if (c == '"' || c == '\\' || c < ' ')
                        printf("\\u%04x", c);
                else
                        putchar(c);
        }
        putchar('"');
}

static void answer(struct str raw)
{
        struct arena *a = arena_new(0);
        struct params p;
        const char *comma = "";

        if (!a || !params_parse(&p, raw, &limits_default, a))
                exit(1);
        printf("{\"value\":");
        print_string(p.value);
        printf(",\"params\":[");
        for (const struct param *q = p.first; q; q = q->next, comma = ",") {
                printf("%s[", comma);
                print_string(q->name);
                putchar(',');
                print_string(q->value);
                putchar(']');
        }
        printf("],\"defects\":%u}\n", p.defects);
        arena_free(a);
}

int main(void)
{
        struct buf raw = BUF_INIT;
        int c, high = -1;

        while ((c = getchar()) != EOF) {
                if (c == '\n') {
                        answer(buf_str(&raw));
                        buf_clear(&raw);
                } else if (high < 0) {
                        high = ascii_hex((char)c);
                } else {
                        buf_add_char(&raw, (char)(high << 4 | ascii_hex((char)c)));
                        high = -1;
                }
        }
        buf_free(&raw);
        return 0;
}
