/* Prints what the core says about each message file named on standard input ("id TAB path TAB bytes to skip" a line), as JSON
 * lines for an oracle to check: leaves with type, path, size, SHA-256, charset, disposition, name, text, and the main fields. */
#include "core/addr.h"
#include "core/buf.h"
#include "core/digest.h"
#include "core/mem.h"
#include "core/message.h"
#include "core/sys.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static void print_string(struct str s)
{
        if (!s.p) {
                fputs("null", stdout);
                return;
        }
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

static void print_hash(const char *key, const uint8_t hash[32])
{
        char hex[65];

        digest_hex(hash, hex);
        printf(",\"%s\":\"%s\"", key, hex);
}

static void print_part(struct part *p)
{
        struct err e = { 0 };
        struct str text, charset = part_charset(p);
        uint8_t hash[32];

        printf("{\"path\":");
        print_string(part_path(p));
        printf(",\"content_type\":");
        print_string(part_type(p));
        printf(",\"disposition\":");
        print_string(part_disposition(p));
        printf(",\"filename\":");
        print_string(part_name(p));
        if (!str_eq(charset, STR("us-ascii"))) { /* given or assumed: the core does not tell */
                printf(",\"charset\":");
                print_string(charset);
        }
        printf(",\"len\":%llu", (unsigned long long)part_size(p));
        if (part_sha256(p, hash, &e))
                print_hash("sha256", hash);
        else
                fprintf(stderr, "%s\n", e.text);
        text = part_text(p);
        if (str_starts(part_type(p), STR("text/")) && digest_of(text, hash))
                print_hash("text_sha256", hash);
        printf("}");
}

/* The core gives domains in lower case; the oracle has them as written. */
static struct str as_written(struct message *m, const char *field, struct str addr)
{
        struct str *raw;
        size_t n = message_fields(m, str_of(field), &raw), at;

        for (size_t i = 0; i < n; i++)
                if (str_find_str(raw[i], addr) < raw[i].n)
                        return addr;
        for (size_t i = 0; i < n; i++)
                if ((at = str_find_str_nocase(raw[i], addr)) < raw[i].n)
                        return str_first(str_from(raw[i], at), addr.n);
        return addr;
}

static void print_addresses(struct message *m, const char *field)
{
        const char *comma = "";

        printf(",\"%s\":[", field);
        for (const struct addr *a = message_addresses(m, str_of(field)); a; a = a->next) {
                if (!a->name.n && !a->addr.n)
                        continue;
                printf("%s[", comma);
                comma = ",";
                print_string(a->name);
                printf(",");
                print_string(as_written(m, field, a->addr));
                printf("]");
        }
        printf("]");
}

static void print_message(struct message *m, struct str id)
{
        struct part **leaves;
        const char *const *defects;
        size_t n = message_leaves(m, &leaves);

        printf("{\"id\":");
        print_string(id);
        printf(",\"parts\":[");
        for (size_t i = 0; i < n; i++) {
                if (i)
                        printf(",");
                print_part(leaves[i]);
        }
        printf("],\"subject\":");
        print_string(message_subject(m));
        print_addresses(m, "from");
        print_addresses(m, "to");
        printf(",\"date\":%lld", (long long)message_date(m));
        message_text(m);
        defects = message_defects(m, &n);
        printf(",\"defects\":[");
        for (size_t i = 0; i < n; i++)
                printf("%s\"%s\"", i ? "," : "", defects[i]);
        printf("]}\n");
        if (message_trouble(m)->code != ERR_NONE)
                fprintf(stderr, "%.*s: %s\n", STR_FMT(id), message_trouble(m)->text);
}

/* LF form, as a source gives it. */
static size_t without_crs(char *p, size_t n)
{
        size_t to = 0;

        for (size_t i = 0; i < n; i++)
                if (p[i] != '\r' || i + 1 == n || p[i + 1] != '\n')
                        p[to++] = p[i];
        return to;
}

static void answer(struct str id, const char *path, size_t skip, bool as_file)
{
        struct limits lim = limits_default;
        struct origin o = { .fetched = 1 };
        struct err e = { 0 };
        struct range r;
        struct message *m;
        size_t n = 0;
        int fd = sys_open(path, O_RDONLY, 0, &e);
        char *bytes = fd < 0 ? NULL : sys_read_file(fd, (size_t)1 << 30, &n, &e);

        if (!bytes) {
                fprintf(stderr, "%s: %s\n", path, e.text);
                exit(1);
        }
        if (!as_file)
                n = skip + without_crs(bytes + skip, n - skip);
        r = (struct range){ as_file ? backing_fd(fd) : backing_memory(bytes, n), skip, n - skip };
        if (as_file)
                mem_free(bytes);
        else
                close(fd);
        lim.text = 64 << 20; /* the oracle knows no limits */
        lim.boundary = 16384;
        m = message_new(r, &o, &lim, &e);
        backing_unref(r.in);
        print_message(m, id);
        message_free(m);
}

int main(int argc, char **argv) /* any argument: read from files, not from memory */
{
        char line[8192];

        while (fgets(line, sizeof line, stdin)) {
                struct str rest = str_of(line), all = str_take(&rest, '\n'), id, path;
                char name[4096];
                uint64_t skip = 0;

                id = str_take(&all, '\t');
                path = str_take(&all, '\t');
                str_to_u64(all, UINT32_MAX, &skip);
                snprintf(name, sizeof name, "%.*s", STR_FMT(path));
                answer(id, name, skip, argc > 1);
        }
        return 0;
}
