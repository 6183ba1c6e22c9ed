/* Mail that can be read in two ways: which reading counts, what m.defects says, and how to get at the other. */
#include "core/message.h"

#include "tests/unit/test.h"
#include "core/buf.h"
#include "core/mem.h"

static struct message *open_message(struct str s)
{
        struct origin o = { .source = STR("test"), .fetched = 1000 };
        struct err e;
        struct backing *b = backing_memory(mem_dup(s.p, s.n), s.n);
        struct message *m = message_new((struct range){ b, 0, s.n }, &o, &limits_default, &e);

        backing_unref(b);
        return m;
}

static bool flagged(struct message *m, const char *name)
{
        size_t n;
        const char *const *names = message_defects(m, &n);

        for (size_t i = 0; i < n; i++)
                if (strcmp(names[i], name) == 0)
                        return true;
        return false;
}

/* The leaves below p as text, wrappers opened: "path type content|". */
static void print_leaves(struct part *p, struct buf *out)
{
        struct part **children;
        size_t n = part_children(p, &children);

        if (n == 0 && !part_is_container(p))
                buf_printf(out, "%.*s %.*s %.*s|", STR_FMT(part_path(p)), STR_FMT(part_type(p)), STR_FMT(part_content(p)));
        for (size_t i = 0; i < n; i++)
                print_leaves(children[i], out);
}

struct reading {
        struct str text;
        const char *defect, *chosen, *other; /* other NULL: there is one reading */
};

static void check_reading(int line, const struct reading *t)
{
        struct message *m = open_message(t->text);
        struct buf chosen = BUF_INIT, other = BUF_INIT;
        struct part *alternative;

        print_leaves(message_root(m), &chosen);
        test_same(__FILE__, line, "chosen", buf_str(&chosen), str_of(t->chosen));
        alternative = part_alternative(message_root(m));
        CHECK(alternative == part_alternative(message_root(m)));
        if (alternative)
                print_leaves(alternative, &other);
        if (!alternative != !t->other || (t->defect && !flagged(m, t->defect))) {
                test_bad++;
                printf("%s:%d: %s, and %s it\n", __FILE__, line, alternative ? "two readings" : "one reading",
                       t->defect && flagged(m, t->defect) ? "a defect names" : "no defect names");
        }
        test_same(__FILE__, line, "other", other.n ? buf_str(&other) : STR(""), str_of(t->other ? t->other : ""));
        buf_clear(&chosen); /* the other one must not have changed it */
        print_leaves(message_root(m), &chosen);
        test_same(__FILE__, line, "chosen again", buf_str(&chosen), str_of(t->chosen));
        CHECK(message_trouble(m)->code == ERR_NONE);
        buf_free(&chosen);
        buf_free(&other);
        message_free(m);
}
#define READING(text, defect, chosen, other) check_reading(__LINE__, &(struct reading){ STR(text), defect, chosen, other })

TEST(one_reading)
{
        READING("Subject: x\n\nplain", NULL, "1 text/plain plain|", NULL);
        READING("Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Transfer-Encoding: base64\n\neA==\n--a--\n", NULL,
                "1 text/plain x|", NULL);
}

#define TWO_TREES "\n\n--a\n\nfor a\n--a--\n--b\n\nfor b\n--b--\n"

TEST(M04_two_boundaries)
{
        READING("Content-Type: multipart/mixed; boundary=a; boundary=b" TWO_TREES, "ambiguous.boundary", "1 text/plain for a|",
                "1 text/plain for b|");
        READING("Content-Type: multipart/mixed; boundary=a; x=y; boundary=\"a\"" TWO_TREES, "ambiguous.boundary", "1 text/plain for a|", NULL);
}

TEST(M04_rfc2231_form)
{
        READING("Content-Type: multipart/mixed; boundary=a; boundary*0=b" TWO_TREES, "ambiguous.boundary", "1 text/plain for a|",
                "1 text/plain for b|");
        READING("Content-Type: multipart/mixed; boundary*0=b; boundary=a" TWO_TREES, "ambiguous.boundary", "1 text/plain for a|",
                "1 text/plain for b|");
        READING("Content-Type: multipart/mixed; boundary*=utf-8''%62; boundary=a" TWO_TREES, "ambiguous.boundary", "1 text/plain for a|",
                "1 text/plain for b|");
        READING("Content-Type: multipart/mixed; boundary*0=a" TWO_TREES, NULL, "1 text/plain for a|", NULL);
}

TEST(M04_comment_in_the_name)
{
        READING("Content-Type: multipart/mixed; boundary(x)=a; boundary=b" TWO_TREES, "ambiguous.boundary", "1 text/plain for a|",
                "1 text/plain for b|");
        READING("Content-Type: multipart/mixed; bound(x)ary=b; boundary=a" TWO_TREES, "syntax.parameters", "1 text/plain for a|", NULL);
        READING("Content-Type: multipart/mixed; (boundary=b;) boundary=a" TWO_TREES, NULL, "1 text/plain for a|", NULL);
}

TEST(M04_encoded_word)
{
        READING("Content-Type: multipart/mixed; boundary=\"=?us-ascii?q?b?=\"\n\n--=?us-ascii?q?b?=\n\nliteral\n--=?us-ascii?q?b?=--\n"
                "--b\n\ndecoded\n--b--\n",
                "ambiguous.boundary", "1 text/plain literal|", "1 text/plain decoded|");
}

TEST(M04_inside_another)
{
        READING("Content-Type: message/rfc822\n\nContent-Type: multipart/mixed; boundary=a; boundary=b" TWO_TREES, "ambiguous.boundary",
                "1.1 text/plain for a|", "1.1 text/plain for b|");
}

TEST(M05_two_types)
{
        READING("Content-Type: text/plain\nContent-Type: text/html; charset=utf-8\n\n<b>x", "duplicate.type", "1 text/plain <b>x|",
                "1 text/html <b>x|");
        READING("Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=b\n\n--b\n\nin\n--b--\n", "duplicate.type",
                "1 text/plain --b\n\nin\n--b--\n|", "1 text/plain in|");
        READING("Content-Type: text/plain\nContent-Type: Text/Plain\n\nx", "duplicate.type", "1 text/plain x|", NULL);
}

TEST(M05_two_encodings)
{
        READING("Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64\n\neA==", "duplicate.encoding", "1 text/plain eA==|",
                "1 text/plain x|");
        READING("Content-Transfer-Encoding: base64\nContent-Transfer-Encoding: quoted-printable\n\neA==", "duplicate.encoding",
                "1 text/plain x|", "1 text/plain eA=|");
}

/* Which of these are the field is a choice; that no word is said of it never is. */
TEST(M06_odd_names)
{
        READING("Content-Transfer-Encoding : base64\n\neA==", "header.names", "1 text/plain x|", NULL);
        READING("Content-Transfer-Encoding\t:base64\n\neA==", "header.names", "1 text/plain x|", NULL);
        READING("Content-Transfer-Encoding\0: base64\n\neA==", "header.nul", "1 text/plain eA==|", NULL);
        READING("Content-Transfer\0-Encoding: base64\n\neA==", "header.names", "1 text/plain eA==|", NULL);
        READING("\0Content-Transfer-Encoding: base64\n\neA==", "header.names", "1 text/plain eA==|", NULL);
        READING("Content-Transfer -Encoding: base64\n\n", "header.missing", "1 text/plain Content-Transfer -Encoding: base64\n\n|", NULL);
        READING("A: b\nContent-Transfer -Encoding: base64\n\neA==", "header.names", "1 text/plain eA==|", NULL);
        READING("A: b\nContent-Transfer-Encoding\n : base64\n\neA==", "header.junk", "1 text/plain eA==|", NULL);
        READING("A: b\nContent-Transfer-\n Encoding: base64\n\neA==", "header.junk", "1 text/plain eA==|", NULL);
        READING("A: b\n Content-Transfer-Encoding: base64\n\neA==", NULL, "1 text/plain eA==|", NULL); /* a fold of A, to everybody */
        READING(" Content-Transfer-Encoding: base64\n\neA==", "header.junk", "1 text/plain eA==|", NULL);
}

TEST(M07_encodings)
{
        READING("Content-Transfer-Encoding: base64 (c)\n\neA==", NULL, "1 text/plain x|", NULL);
        READING("Content-Transfer-Encoding: BASE64\n\neA==", NULL, "1 text/plain x|", NULL);
        READING("Content-Transfer-Encoding: \"base64\"\n\neA==", "encoding.unknown", "1 text/plain eA==|", "1 text/plain x|");
        READING("Content-Transfer-Encoding: =?utf-8?q?base64?=\n\neA==", "encoding.unknown", "1 text/plain eA==|", "1 text/plain x|");
        READING("Content-Transfer-Encoding: =?utf-8?b?YmFzZTY0?=\n\neA==", "encoding.unknown", "1 text/plain eA==|", "1 text/plain x|");
        READING("Content-Transfer-Encoding: \"quoted-printable\"\n\n=41", "encoding.unknown", "1 text/plain =41|", "1 text/plain A|");
        READING("Content-Transfer-Encoding: base645\n\neA==", "encoding.unknown", "1 text/plain eA==|", NULL);
        READING("Content-Transfer-Encoding: base64, base64\n\neA==", "encoding.unknown", "1 text/plain eA==|", NULL);
        READING("Content-Transfer-Encoding: \"\"\"\n\neA==", "encoding.unknown", "1 text/plain eA==|", NULL);
        READING("Content-Transfer-Encoding: x-uuencode\n\nbegin 644 a\n#0V%T\n`\nend\n", NULL, "1 text/plain Cat|", NULL);
}

#define LEAF64 "Content-Transfer-Encoding: base64\n\n"

TEST(M08_garbage_and_padding)
{
        READING(LEAF64 "Zm9v!Ym*Fy", NULL, "1 text/plain foobar|", NULL);
        READING(LEAF64 "Zg==Zm8=", NULL, "1 text/plain ffo|", "1 text/plain f|");
        READING(LEAF64 "Zg=Zm8=", NULL, "1 text/plain ffo|", "1 text/plain f|");
        READING(LEAF64 "Zm9v=Zm8=", NULL, "1 text/plain foofo|", "1 text/plain foo|");
        READING(LEAF64 "Zg==\n\n-- \n", NULL, "1 text/plain f|", NULL);
        READING(LEAF64 "Zg", NULL, "1 text/plain f|", NULL);
        READING(LEAF64 "Zm9vZ", NULL, "1 text/plain foo|", NULL);
        READING(LEAF64 "Z", NULL, "1 text/plain |", NULL);
}

TEST(M08_flags)
{
        static const struct {
                const char *body, *defect;
        } table[] = { { "Zm9v!Ym*Fy", "encoding.base64" }, { "Zg==Zm8=", "encoding.padding" }, { "Zg", "encoding.truncated" }, { "Z", "encoding.truncated" } };

        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
                struct buf b = BUF_INIT;
                struct message *m;
                struct part **leaves;

                buf_printf(&b, LEAF64 "%s", table[i].body);
                m = open_message(buf_str(&b));
                NEED(message_leaves(m, &leaves) == 1);
                CHECK(!flagged(m, table[i].defect));
                part_size(leaves[0]);
                CHECK(flagged(m, table[i].defect));
                message_free(m);
                buf_free(&b);
        }
}

TEST(M09_base64_on_a_multipart)
{
        /* "--b\n\nhidden\n--b--\n" */
        READING("Content-Type: multipart/mixed; boundary=b\n" LEAF64 "LS1iCgpoaWRkZW4KLS1iLS0K\n--b\n\nseen\n--b--\n", "encoding.multipart",
                "1 text/plain seen|", "1.1 text/plain hidden|");
        READING("Content-Type: multipart/mixed; boundary=\"b\\\"c\"\nContent-Transfer-Encoding: quoted-printable\n\n--b\"c\n\n=41\n--b\"c--\n",
                "encoding.multipart", "1 text/plain =41|", "1.1 text/plain A|");
}

static void check_hidden(struct str text, const char *defect, const char *hidden)
{
        struct message *m = open_message(text);
        struct part **leaves;
        struct str all;

        CHECK(message_attachments(m, &leaves) == 0);
        CHECK(message_leaves(m, &leaves) == 1);
        CHECK_STR(part_text(leaves[0]), "seen");
        CHECK(flagged(m, defect));
        CHECK(str_find_str(message_text(m), str_of(hidden)) == message_text(m).n);
        all = part_content(message_root(m));
        CHECK(str_find_str(all, str_of(hidden)) < all.n);
        message_free(m);
}

#define ATTACHED "Content-Type: application/pdf\nContent-Disposition: attachment; filename=x.pdf\n\nhidden\n"

TEST(M13_hidden_parts)
{
        check_hidden(STR("Content-Type: multipart/mixed; boundary=b\n\n" ATTACHED "--b\n\nseen\n--b--\n"), "hidden.preamble", "hidden");
        check_hidden(STR("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nseen\n--b--\n" ATTACHED), "hidden.epilogue", "hidden");
        check_hidden(STR("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nseen\n--b--\n--b\n" ATTACHED "--b--\n"), "hidden.epilogue", "hidden");
}

/* All doubts of a message at once, and those of a leaf alone. */
TEST(of_a_leaf_and_of_all)
{
        struct message *m = open_message(STR("Content-Type: multipart/mixed; boundary=a\n\n--a\nContent-Transfer-Encoding: \"base64\"\n\neA==\n--a\n\nplain\n"
                                             "--a\nContent-Transfer-Encoding: base64\n\neA==eQ==\n--a--\n"));
        struct part **leaves, *other;
        struct buf b = BUF_INIT;

        NEED(message_leaves(m, &leaves) == 3);
        other = part_alternative(leaves[0]);
        NEED(other);
        CHECK_STR(part_content(other), "x");
        CHECK_STR(part_path(other), "1");
        CHECK(part_index(other) == 1 && part_message(other) == m && !part_alternative(other));
        CHECK(!part_alternative(leaves[1]));
        other = part_alternative(leaves[2]);
        NEED(other);
        CHECK_STR(part_content(other), "x");
        CHECK_STR(part_content(leaves[2]), "xy");
        CHECK(part_size(other) == 1 && part_size(leaves[2]) == 2 && part_index(other) == 3);
        other = part_alternative(message_root(m));
        NEED(other);
        print_leaves(other, &b);
        CHECK_STR(buf_str(&b), "1 text/plain x|2 text/plain plain|3 text/plain x|");
        CHECK(part_is_root(other) && part_is_wrapped(other) && part_size(other) == message_size(m));
        CHECK(message_leaves(m, &leaves) == 3);
        buf_free(&b);
        message_free(m);
}

/* The other reading has limits, too, and they are not those that the first one has used up. */
TEST(within_limits)
{
        struct buf b = BUF_INIT;
        struct message *m;
        struct part **children;

        buf_printf(&b, "Content-Type: multipart/mixed; boundary=a; boundary=b\n\n");
        for (int i = 0; i < 20000; i++)
                buf_printf(&b, "--a\n\nx\n--b\n\ny\n");
        m = open_message(buf_str(&b));
        CHECK(message_leaves(m, &children) == limits_default.parts - 1);
        NEED(part_alternative(message_root(m)));
        NEED(part_children(part_alternative(message_root(m)), &children) == 1);
        CHECK(part_children(children[0], &children) == limits_default.parts - 1);
        CHECK(message_trouble(m)->code == ERR_NONE);
        message_free(m);
        buf_free(&b);
}

static void check_names(int line, const char *head, const char *want, bool defect)
{
        struct buf text = BUF_INIT, got = BUF_INIT;
        struct message *m;
        struct part **leaves;
        struct str *names;
        size_t n;

        buf_printf(&text, "%s\n\nx", head);
        m = open_message(buf_str(&text));
        NEED(message_leaves(m, &leaves) == 1);
        n = part_names(leaves[0], &names);
        for (size_t i = 0; i < n; i++)
                buf_printf(&got, "%.*s|", STR_FMT(names[i]));
        test_same(__FILE__, line, "names", got.n ? buf_str(&got) : STR(""), str_of(want));
        if (n)
                CHECK_BYTES(part_name(leaves[0]), names[0]);
        CHECK(n || !part_name(leaves[0]).p);
        CHECK(flagged(m, "ambiguous.name") == defect);
        message_free(m);
        buf_free(&text);
        buf_free(&got);
}
#define NAMES(head, want, defect) check_names(__LINE__, head, want, defect)

TEST(H11_all_names)
{
        NAMES("Content-Type: a/b", "", false);
        NAMES("Content-Type: a/b; name=n\nContent-Disposition: attachment; filename=f; filename*=utf-8''s", "s|f|n|", true);
        NAMES("Content-Type: a/b; name=same\nContent-Disposition: attachment; filename=same", "same|", false);
        NAMES("Content-Type: a/b; name=n\nContent-Disposition: attachment; filename=\" \"", "n|", false);
        NAMES("Content-Type: a/b; name=n; name=second", "n|second|", true);
        NAMES("Content-Disposition: attachment; filename=one\nContent-Disposition: attachment; filename=two.exe", "one|two.exe|", true);
        NAMES("Content-Type: a/b; name*0=long; name*1=er.txt; name=short.txt", "longer.txt|short.txt|", true);
}

TEST(no_memory)
{
        struct str s = STR("Content-Type: multipart/mixed; boundary=a; boundary=b\n\n--a\n\nx\n--b\nContent-Transfer-Encoding: base64\n\neA==eA==\n--b--\n");

        for (size_t n = 1;; n++) {
                struct message *m = open_message(s);
                struct part *other;
                bool ok;

                NEED(m);
                mem_fail_at(n);
                other = part_alternative(message_root(m));
                ok = other && message_trouble(m)->code == ERR_NONE;
                mem_fail_at(0);
                CHECK(other || message_trouble(m)->code == ERR_NOMEM);
                message_free(m);
                if (ok)
                        break;
                NEED(n < 1000);
        }
}

TEST_MAIN
