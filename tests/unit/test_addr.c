#include "tests/unit/test.h"

#include "core/addr.h"
#include "core/buf.h"
#include "core/mem.h"

static struct arena *a;
static unsigned defects;

static struct addr *parse_bytes(struct str raw)
{
        arena_free(a);
        a = arena_new(0);
        defects = 0;
        return addr_parse(raw, &limits_default, &defects, a);
}

/* As text: "name|addr|group" and a '!' where it is not valid, joined by " / ". */
static struct str parse(const char *raw)
{
        static struct buf b;

        buf_clear(&b);
        for (struct addr *o = parse_bytes(str_of(raw)); o; o = o->next) {
                buf_printf(&b, "%s%.*s|%.*s", b.n ? " / " : "", STR_FMT(o->name), STR_FMT(o->addr));
                if (o->group.p)
                        buf_printf(&b, "|%.*s", STR_FMT(o->group));
                if (!o->valid)
                        buf_add_char(&b, '!');
        }
        return buf_str(&b);
}

TEST(rfc5322_appendix_a)
{
        CHECK_STR(parse("John Doe <jdoe@machine.example>"), "John Doe|jdoe@machine.example");
        CHECK_STR(parse("\"Joe Q. Public\" <john.q.public@example.com>"), "Joe Q. Public|john.q.public@example.com");
        CHECK_STR(parse("Joe Q. Public <j@x.org>"), "Joe Q. Public|j@x.org");
        CHECK_STR(parse("Mary Smith <mary@x.test>, jdoe@example.org, Who? <one@y.test>"),
                  "Mary Smith|mary@x.test / |jdoe@example.org / Who?|one@y.test");
        CHECK_STR(parse("<boss@nil.test>, \"Giant; \\\"Big\\\" Box\" <sys@example.net>"),
                  "|boss@nil.test / Giant; \"Big\" Box|sys@example.net");
        CHECK(defects == 0);
        CHECK_STR(parse("A Group:Ed Jones <c@a.test>,joe@where.test,John <jdoe@one.test>;"),
                  "Ed Jones|c@a.test|A Group / |joe@where.test|A Group / John|jdoe@one.test|A Group");
        CHECK_STR(parse("Undisclosed recipients:;"), "");
        CHECK_STR(parse("Pete(A nice \\) chap) <pete(his account)@silly.test(his host)>"), "Pete|pete@silly.test");
        CHECK_STR(parse("A Group(Some people)\r\n     :Chris Jones <c@(Chris's host.)public.example>,\r\n joe@example.org,\r\n"
                        "  John <jdoe@one.test> (my dear friend); (the end of the group)"),
                  "Chris Jones|c@public.example|A Group / |joe@example.org|A Group / John|jdoe@one.test|A Group");
        CHECK_STR(parse("(Empty list)(start)Hidden recipients  :(nobody(that I know))  ;"), "");
        CHECK_STR(parse("Mary Smith <@node.test,@b.test:mary@example.net>, , jdoe@test  . example"),
                  "Mary Smith|mary@example.net / |jdoe@test.example");
        CHECK_STR(parse("John Doe <jdoe@machine(comment).  example>"), "John Doe|jdoe@machine.example");
        CHECK(defects == 0);
}

TEST(names)
{
        CHECK_STR(parse("joe@x.org (Joe Bloggs)"), "Joe Bloggs|joe@x.org");
        CHECK_STR(parse("(=?utf-8?q?J=C3=B6rn?=) j@x.org"), "J\xc3\xb6rn|j@x.org");
        CHECK_STR(parse("=?ISO-8859-1?Q?Andr=E9?= Pirard <p@x.org>"), "Andr\xc3\xa9 Pirard|p@x.org");
        CHECK_STR(parse("\"=?ISO-8859-1?Q?a?= b\" <t@x.org>"), "a b|t@x.org");
        CHECK_STR(parse("=?utf-8?q?a=2C_b=40c=2Ed?= <t@x.org>"), "a, b@c.d|t@x.org");
        CHECK_STR(parse("\"Serge B, Chair\" =?utf-8?b?w6Q=?= x <a@b.com>"), "Serge B, Chair \xc3\xa4 x|a@b.com");
        CHECK_STR(parse("\"phil@example.com\" <phil@x.org>"), "phil@example.com|phil@x.org");
        CHECK_STR(parse("phil@example.com <phil@x.org>"), "phil@example.com|phil@x.org");
        CHECK_STR(parse("DOMAIN\\joe <joe@x.org>"), "DOMAIN\\joe|joe@x.org");
        CHECK_STR(parse("<a@b.com> =?utf-8?q?Doe?="), "Doe|a@b.com");
        CHECK_STR(parse("J\xf6rn <j@x.org>"), "J\xc3\xb6rn|j@x.org");
        CHECK(defects & ADDR_CHARSET);
}

TEST(parts)
{
        struct addr *o = parse_bytes(STR("<\"Sys Admin\"@EXAMPLE.com>"));

        NEED(o);
        CHECK_STR(o->addr, "\"Sys Admin\"@example.com");
        CHECK_STR(o->written, "\"Sys Admin\"@EXAMPLE.com");
        CHECK_STR(o->user, "Sys Admin");
        CHECK_STR(o->domain, "example.com");
        o = parse_bytes(STR("\"Joe\"@X.org"));
        NEED(o);
        CHECK_STR(o->addr, "Joe@x.org");
        CHECK_STR(o->user, "Joe");
        o = parse_bytes(STR("joe@[192.0.2.1], j\xc3\xb6@m\xc3\xa4.example, a..b.@docomo.example"));
        NEED(o && o->next && o->next->next);
        CHECK_STR(o->domain, "[192.0.2.1]");
        CHECK_STR(o->next->addr, "j\xc3\xb6@m\xc3\xa4.example");
        CHECK_STR(o->next->next->user, "a..b.");
        CHECK(defects == 0);
}

TEST(separators)
{
        CHECK_STR(parse("a@x.org; b@x.org"), "|a@x.org / |b@x.org");
        CHECK_STR(parse("G: a@x.org; b@x.org, H: c@x.org"), "|a@x.org|G / |b@x.org / |c@x.org|H");
        CHECK_STR(parse("undisclosed-recipients;;"), "|undisclosed-recipients!");
        CHECK_STR(parse(",,,, a@x.org ,,"), "|a@x.org");
        CHECK_STR(parse("<>"), "");
        CHECK_STR(parse(""), "");
}

TEST(H05_never_another_address)
{
        CHECK_STR(parse("root"), "|root!");
        CHECK_STR(parse("Moderator <moderator>"), "Moderator|moderator!");
        CHECK_STR(parse("a@b@c"), "|a@b@c!");
        CHECK_STR(parse("@"), "|@!");
        CHECK_STR(parse("@b"), "|@b!");
        CHECK_STR(parse("a@"), "|a@!");
        CHECK_STR(parse("<a b@c>"), "|a b@c!");
        CHECK_STR(parse("John Doe a@b.org"), "|John Doe a@b.org!");
        CHECK_STR(parse("a@b.org c@d.org"), "|a@b.org c@d.org!");
        CHECK_STR(parse("<a, b@c>"), "|a! / |b@c>!");
        CHECK_STR(parse("<mailto:a@b.org>"), "|mailto:a@b.org!");
        CHECK_STR(parse("a@b..c, a@.b, a@b."), "|a@b..c! / |a@.b! / |a@b.!");
        CHECK_STR(parse("<<<<"), "|<<<<!");
        CHECK_STR(parse("\\"), "|\\!");
        CHECK(defects & ADDR_SYNTAX);
        CHECK_STR(parse("a\x01@b.org"), "|a\xef\xbf\xbd@b.org!");
        CHECK_STR(parse("a@b.org\xff"), "|a@b.org\xef\xbf\xbd!");
        CHECK_STR(parse("a@[1 <x@y> 2]"), "|a@[1 <x@y> 2]!");
        CHECK_STR(parse("a@[1 92.0.2.1], b@[ 192.0.2.1 ]"), "|a@[1 92.0.2.1]! / |b@[192.0.2.1]");
        CHECK_STR(parse("\"a@b.org"), "|\"a@b.org!");
        CHECK_STR(parse("Joe <joe@x.org"), "Joe|joe@x.org"); /* only its '>' is missing */
        CHECK(defects & ADDR_SYNTAX);
}

TEST(brackets_and_colons_astray)
{
        CHECK_STR(parse("a@b.org>, B <c@d.org;>"), "|a@b.org / B|c@d.org");
        CHECK(defects & ADDR_SYNTAX);
        CHECK_STR(parse("B a@b.org>, <c@d.org;e@f.org>"), "|B a@b.org>! / |c@d.org;e@f.org!");
        CHECK_STR(parse("A <a@b.org> Subject: one, <c@d.org> C, \"\" <e@f.org> E"), "A|a@b.org / |one! / C|c@d.org / E|e@f.org");
        CHECK_STR(parse("a@b.org>>"), "|a@b.org>>!");
        CHECK_STR(parse("c@d.org Subject: one"), "|c@d.org Subject! / |one!");
        CHECK(defects & ADDR_SYNTAX);
        CHECK_STR(parse("l@x.org: a@b.org; e@f.org"), "|l@x.org / |a@b.org / |e@f.org");
        CHECK_STR(parse("\"l@x.org\": a@b.org; e@f.org"), "|a@b.org|l@x.org / |e@f.org");
}

static void check_linear(const char *unit, size_t n)
{
        struct buf b = BUF_INIT;

        while (b.n < n)
                buf_add_str(&b, str_of(unit));
        parse_bytes(buf_str(&b));
        buf_free(&b);
}

TEST(brackets_twice_and_commas_forgotten)
{
        CHECK_STR(parse("<a@b.org> <c@d.org>"), "|a@b.org / |c@d.org");
        CHECK(defects & ADDR_SYNTAX);
        CHECK_STR(parse("A <a@b.org> C C <c@d.org> (x), e@f.org"), "A|a@b.org / C C|c@d.org / |e@f.org");
        CHECK_STR(parse("A <a@b.org>\"C, D\"<c@d.org>"), "A|a@b.org / C, D|c@d.org");
        CHECK_STR(parse("g: A <a@b.org> <c@d.org>; <e@f.org>"), "A|a@b.org|g / |c@d.org|g / |e@f.org");
        CHECK_STR(parse("Foo <bar> <c@d.org>"), "Foo|bar! / |c@d.org");
        CHECK_STR(parse("<a@b.org> Joe"), "Joe|a@b.org");
        CHECK_STR(parse("Joe <<a@b.org>>"), "Joe|a@b.org");
        CHECK(defects & ADDR_SYNTAX);
        CHECK_STR(parse("Joe <<a@b.org>, c@d.org"), "Joe|a@b.org / |c@d.org");
        CHECK_STR(parse("=?utf-8?q?a@b.org?="), "|=?utf-8?q?a@b.org?=!");
}

TEST(H05_H06_linear)
{
        static const char *const units[] = { "(", "\"", "\\", "<", "@[", "<\"", ",", ";", "a:", ":;", "a:;;;;", "<@a,", "()", "(\\", "a@b ", "=?x?q?", "<a>" };

        for (size_t i = 0; i < sizeof units / sizeof *units; i++)
                check_linear(units[i], 1 << 20);
        check_linear("(", 100000);
        CHECK(defects & ADDR_LIMIT);
}

TEST(H04_half_a_million)
{
        struct buf b = BUF_INIT;
        struct limits lim = limits_default;
        unsigned n = 0;

        for (int i = 0; i < 500000; i++)
                buf_add_str(&b, STR("a@b.c,"));
        for (struct addr *o = parse_bytes(buf_str(&b)); o; o = o->next)
                n++;
        CHECK(n == 10000 && (defects & ADDR_LIMIT));
        lim.header_field = 16; /* cut inside of the second: half of it is not given out */
        n = defects = 0;
        for (struct addr *o = addr_parse(STR("a@b.org,boss@example.com"), &lim, &defects, a); o; o = o->next) {
                CHECK_STR(o->addr, "a@b.org");
                n++;
        }
        CHECK(n == 1 && (defects & ADDR_LIMIT));
        buf_free(&b);
}

TEST(every_cut)
{
        struct str whole = STR("G (c): \"Q \\\" s\" (x) <@r:\"l o\"@[1.2.3.4]>, =?utf-8?q?=C3=A4?= <a.b@c.d>; e@f");

        for (size_t n = 0; n <= whole.n; n++) {
                char *copy = malloc(n ? n : 1);

                memcpy(copy, whole.p, n);
                for (struct addr *o = parse_bytes(str_make(copy, n)); o; o = o->next)
                        CHECK(o->name.p && o->addr.p && o->user.p && o->domain.p);
                free(copy);
        }
}

TEST(of_any_string)
{
        CHECK_STR(addr_user_of(STR("me+lead+x@x.org")), "me");
        CHECK_STR(addr_detail_of(STR("me+lead+x@x.org")), "lead+x");
        CHECK_STR(addr_domain_of(STR("me+lead@X.org")), "X.org");
        CHECK_STR(addr_detail_of(STR("me@x.org")), "");
        CHECK_STR(addr_user_of(STR("nobody")), "");
        CHECK_STR(addr_domain_of(STR("")), "");
        CHECK_STR(addr_domain_of(STR("a@evil@bank.example")), "");
        CHECK_STR(addr_domain_of(STR("\"a@b\"@x.org")), "x.org");
        CHECK_STR(addr_user_of(STR("+x@x.org")), "+x");
}

TEST(S03_S04_check)
{
        char longer[400];
        struct err e;

        CHECK(addr_check(STR("me+x@x.org"), &e));
        CHECK(addr_check(STR("j\xc3\xb6@x.org"), &e));
        CHECK(!addr_check(STR("-oQ/tmp@x.org"), &e));
        CHECK(!addr_check(STR("a b@c.org"), &e));
        CHECK(!addr_check(STR("<a>@b.org"), &e));
        CHECK(!addr_check(STR("a@b.org\r\nRCPT TO:<x@y>"), &e));
        CHECK(!addr_check(STR("a@b\0.org"), &e));
        CHECK(!addr_check(STR("a"), &e) && !addr_check(STR(""), &e) && !addr_check(STR("@b"), &e) && !addr_check(STR("a@"), &e));
        CHECK(!addr_check(STR("a@b@c"), &e));
        memset(longer, 'a', sizeof longer);
        longer[200] = '@';
        CHECK(!addr_check(str_make(longer, sizeof longer), &e));
        CHECK(e.code == ERR_USAGE);
}

TEST(out_of_memory)
{
        size_t n;
        struct addr *o = NULL;

        for (n = 1; n < 100 && !o; n++) {
                struct arena *one = arena_new(0);

                mem_fail_at(n);
                o = addr_parse(STR("G: =?utf-8?q?=C3=A4?= <a.b@c.d>, (x) \"q q\"@e.f"), &limits_default, &defects, one);
                mem_fail_at(0);
                CHECK(!o || (o->next && o->name.n == 2));
                arena_free(one);
        }
        CHECK(o && n > 2);
        arena_free(a);
        a = NULL;
}

TEST_MAIN
