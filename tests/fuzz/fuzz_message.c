/* Everything a script can ask of a message. Text is UTF-8, ranges lie inside, a part read in small pieces is the part read at once,
 * its hash is that of its bytes, and broken mail is never a failure. */
#include "core/digest.h"
#include "core/message.h"
#include "core/sniff.h"
#include "tests/fuzz/fuzz.h"

enum { BOMB = 40 }; /* parts of one message that are read: more are the same again */

/* Macros, so that a broken one is told by its line. */
#define text(s) MUST(utf8_valid(s))
#define one_line(s) MUST(fits_a_line(s))

static bool fits_a_line(struct str s) { return utf8_valid(s) && !memchr(s.p ? s.p : "", '\n', s.n); }

static void inside(struct range r, struct message *m)
{
        struct range all = message_range(m);

        if (r.in == all.in) /* what stands in a wrapper has bytes of its own */
                MUST(r.at >= all.at && r.at - all.at <= all.n && r.n <= all.n - (r.at - all.at));
}

static void read_part(struct part *p, size_t most, struct buf *out)
{
        struct err e;
        struct reader *r = part_open(p, &e);
        struct dice d = { most };
        char block[4096];
        ssize_t n;

        MUST(r);
        while ((n = reader_read(r, block, 1 + dice_roll(&d, most), &e)) > 0)
                buf_add(out, block, (size_t)n);
        MUST(n == 0 && buf_ok(out, NULL));
        reader_close(r);
}

static void check_bytes(struct part *p)
{
        struct buf large = BUF_INIT, small = BUF_INIT;
        uint8_t told[DIGEST_SIZE], made[DIGEST_SIZE];
        struct str content;
        struct err e;

        read_part(p, 4096, &large);
        read_part(p, 7, &small);
        MUST_SAME(buf_str(&large), buf_str(&small));
        MUST(part_size(p) == large.n);
        MUST(part_sha256(p, told, &e) && digest_of(buf_str(&large), made) && memcmp(told, made, DIGEST_SIZE) == 0);
        content = part_content(p);
        MUST(content.n <= large.n);
        MUST_SAME(content, str_first(buf_str(&large), content.n));
        buf_free(&large);
        buf_free(&small);
}

static void check_part(struct part *p)
{
        struct message *m = part_message(p);
        struct part **children;
        struct str reason, *names;
        size_t n = part_names(p, &names);

        inside(part_raw(p), m);
        inside(part_entity(p), m);
        MUST(part_encoded_size(p) == part_raw(p).n || part_is_root(p));
        one_line(part_path(p));
        one_line(part_type(p));
        one_line(part_charset(p));
        one_line(part_disposition(p));
        one_line(part_name(p));
        MUST((n > 0) == (part_name(p).p != NULL));
        for (size_t i = 0; i < n; i++)
                one_line(names[i]);
        one_line(part_id(p));
        one_line(part_field(p, STR("content-description")));
        text(part_text(p));
        part_attached(p, &reason);
        text(reason);
        if (part_children(p, &children) == 0 && !part_is_container(p))
                check_bytes(p);
}

static void check_list(struct message *m, size_t list(struct message *m, struct part ***out))
{
        struct part **parts;
        size_t n = list(m, &parts);

        for (size_t i = 0; i < n && i < BOMB; i++)
                check_part(parts[i]);
}

/* The other reading, of the whole and of each leaf: parts like any others, and it changes nothing. */
static void check_other(struct part *p, unsigned *left)
{
        struct part **children;
        size_t n;

        if (*left == 0)
                return;
        --*left;
        if (!part_is_root(p))
                check_part(p);
        MUST(!part_alternative(p));
        n = part_children(p, &children);
        for (size_t i = 0; i < n; i++)
                check_other(children[i], left);
}

static void check_alternatives(struct message *m)
{
        struct part **leaves, **again, *whole = part_alternative(message_root(m));
        size_t n = message_leaves(m, &leaves);
        unsigned left = BOMB;

        if (whole)
                check_other(whole, &left);
        for (size_t i = 0; i < n && i < BOMB; i++) {
                struct part *other = part_alternative(leaves[i]);

                MUST(!other || whole);
                if (other)
                        check_other(other, &left);
        }
        MUST(message_leaves(m, &again) == n && again == leaves);
}

static void check_leaves_apart(struct message *m)
{
        struct part **parts;
        size_t n = message_leaves(m, &parts);

        for (size_t i = 0; i < n; i++) {
                struct range a = part_raw(parts[i]), b = i + 1 < n ? part_raw(parts[i + 1]) : a;

                MUST(part_index(parts[i]) == i + 1);
                MUST(i + 1 == n || a.in != b.in || b.at >= a.at + a.n);
        }
}

static void check_fields(struct message *m)
{
        static const char *const names[] = { "subject", "from", "to", "date", "content-type", "received", "x-nothing" };
        struct str *all;
        size_t n;

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                one_line(message_field(m, str_of(names[i])));
                n = message_fields(m, str_of(names[i]), &all);
                for (size_t k = 0; k < n; k++)
                        one_line(all[k]);
                n = message_ids(m, str_of(names[i]), &all);
                for (size_t k = 0; k < n; k++)
                        one_line(all[k]);
                for (const struct addr *a = message_addresses(m, str_of(names[i])); a; a = a->next) {
                        one_line(a->addr);
                        one_line(a->name);
                        one_line(a->user);
                        one_line(a->domain);
                        one_line(a->group);
                }
        }
        one_line(message_subject(m));
        one_line(message_id(m));
        one_line(message_list_id(m));
        one_line(message_envelope_to(m));
        MUST(message_subject(m).p && message_text(m).p);
        text(message_text(m));
        text(message_html(m));
        message_date(m), message_received(m), message_received_count(m);
}

static struct message *open_message(struct str in, const struct limits *lim)
{
        struct backing *b = backing_memory(fuzz_copy(in), in.n);
        struct origin o = { .source = STR("fuzz"), .folder = STR(""), .flags = STR("") };
        struct err e;
        struct message *m;

        MUST(b);
        m = message_new((struct range){ b, 0, in.n }, &o, lim, &e);
        backing_unref(b);
        MUST(m);
        return m;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct dice d = dice_of(in);
        struct limits lim = limits_default;
        struct message *m;
        struct part **parts;
        uint8_t hash[32], made[32];
        struct err e;
        size_t n;

        if (dice_roll(&d, 4) == 0) {
                lim.depth = 3, lim.parts = 8, lim.text = 50, lim.header_field = 80, lim.header_block = 700, lim.header_fields = 12;
                lim.addresses = 3, lim.words = 2, lim.parameters = 3, lim.sections = 2;
        }
        m = open_message(in, &lim);
        if (dice_roll(&d, 2))
                MUST(message_parse(m, &e));
        check_fields(m);
        check_leaves_apart(m);
        check_list(m, message_leaves);
        check_list(m, message_open_leaves);
        check_list(m, message_attachments);
        check_alternatives(m);
        check_bytes(message_root(m));
        MUST(message_hash(m, hash, &e) && digest_of(in, made) && memcmp(hash, made, sizeof hash) == 0);
        MUST(message_identity(m, hash, &e));
        if (dice_roll(&d, 64) == 0 && message_leaves(m, &parts) > 0)
                one_line(part_detected(parts[0]));
        MUST(message_defects(m, &n) || n == 0);
        MUST(message_trouble(m)->code == ERR_NONE);
        message_free(m);
        return 0;
}
