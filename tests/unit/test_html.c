#include "core/html.h"

#include "tests/unit/test.h"
#include <time.h>

static void check(int line, struct str html, const char *want)
{
        struct buf out = BUF_INIT;
        struct err e;

        if (!html_text(html, 1 << 20, &out, &e) || !str_eq(buf_str(&out), str_of(want))) {
                test_bad++;
                printf("%s:%d: text is \"%.*s\", not \"%s\"\n", __FILE__, line, STR_FMT(buf_str(&out)), want);
        }
        buf_free(&out);
}
#define CHECK_HTML(html, want) check(__LINE__, STR(html), want)

TEST(inline_text)
{
        CHECK_HTML("", "");
        CHECK_HTML("plain", "plain\n");
        CHECK_HTML("  a <b>bold</b>\n\n word<i>s</i> ", "a bold words\n");
        CHECK_HTML("a&nbsp;&nbsp;b &amp; c &lt;d&gt; &#8364; &auml;", "a b & c <d> \xe2\x82\xac \xc3\xa4\n");
        CHECK_HTML("soft\xc2\xadhyphen zero\xe2\x80\x8bwidth", "softhyphen zerowidth\n");
}

TEST(blocks)
{
        CHECK_HTML("<h1>Title</h1><p>One</p><p>Two<br>lines</p><div>a</div><div>b</div>", "Title\n\nOne\n\nTwo\nlines\n\na\nb\n");
        CHECK_HTML("a<br><br>b<br><br><br><br>c", "a\n\nb\n\nc\n");
        CHECK_HTML("<pre>a  b\n  c\n\nd</pre>", "a  b\n  c\n\nd\n");
        CHECK_HTML("<p>x</p><blockquote>quoted<br>twice</blockquote>y", "x\n\n> quoted\n> twice\n\ny\n");
        CHECK_HTML("a<hr>b", "a\n---\nb\n");
}

TEST(dropped)
{
        CHECK_HTML("<head><title>t</title><style>p{}</style></head><body><script>x()</script>text<!-- no --></body>", "text\n");
        CHECK_HTML("<div style='display:none'>preheader</div>shown", "shown\n");
        CHECK_HTML("<span style=\"color:red;display: none\">x</span>shown", "shown\n");
}

TEST(lists_and_tables)
{
        CHECK_HTML("<ul><li>a</li><li>b<ol><li>c<li>d</ol></ul>after", "- a\n- b\n  1. c\n  2. d\n\nafter\n");
        CHECK_HTML("<table><tr><td>a</td><td>b</td></tr><tr><th>c</th><td>d</td></tr></table>", "a  b\nc  d\n");
}

TEST(links_and_images)
{
        CHECK_HTML("<a href='https://x.org/'>here</a> now", "here <https://x.org/> now\n");
        CHECK_HTML("<a href='https://x.org/'>https://x.org</a>", "https://x.org\n");
        CHECK_HTML("<a href='mailto:a@b.c'>a@b.c</a>", "a@b.c\n");
        CHECK_HTML("<a href='#top'>up</a>, <a href='javascript:x()'>no</a>", "up, no\n");
        CHECK_HTML("<a href='https://x.org/'><img src=x></a>z", "z\n");
        CHECK_HTML("see <img alt='the picture' src=x> there", "see the picture there\n");
        CHECK_HTML("<p>a</p><a href='https://x.org/1'>b</a>", "a\n\nb <https://x.org/1>\n");
}

TEST(text_of_newsletters)
{
        CHECK_HTML("<table width=100%><tr><td><table><tr><td><img src=x width=1></td></tr><tr><td><h1>News</h1></td></tr><tr><td>&nbsp;</td></tr>"
                   "<tr><td><p>Dear Ann,</p><p>we&nbsp;have.</p></td></tr></table></td></tr></table>", "News\n\nDear Ann,\n\nwe have.\n");
        CHECK_HTML("<div>pre&zwnj; &zwnj; &#8199;&#847; &zwnj;&nbsp;&shy;</div>shown", "pre\xe2\x80\x8c\nshown\n");
        CHECK_HTML("\xd9\x85\xe2\x80\x8c\xd9\x85", "\xd9\x85\xe2\x80\x8c\xd9\x85\n"); /* inside a Persian word it stays */
        CHECK_HTML("<p>Hi<o:p></o:p></p><!--[if mso]><p>no</p><![endif]--><p class=MsoNormal>Text<o:p>&nbsp;</o:p></p>", "Hi\n\nText\n");
        CHECK_HTML("<td style='font-size:0'><span style='font-size:12px'>seen</span></td>", "seen\n");
}

TEST(hidden)
{
        static const char *const ways[] = { "style='display: NONE !important'", "style='color:red;visibility:hidden'", "hidden", "style='max-height:0px;x:y'",
                                            "style='max-height:0;overflow:hidden'" };
        static const char *const shown[] = { "style='max-height:05em'", "style='display:nonesuch'", "style='x-display:none'", "style='visibility:visible'", "style=':'" };

        for (size_t i = 0; i < 5; i++) {
                char html[100];

                snprintf(html, sizeof html, "<div %s>no</div>yes", ways[i]);
                check(__LINE__, str_of(html), "yes\n");
                snprintf(html, sizeof html, "<div %s>no</div>yes", shown[i]);
                check(__LINE__, str_of(html), "no\nyes\n");
        }
}

TEST(numbers_of_lists)
{
        CHECK_HTML("<ol start=5><li>five<li value=9>nine<li>ten</ol>", "5. five\n9. nine\n10. ten\n");
        CHECK_HTML("<ol start=-1><li value=99999999999>a<li>b</ol>", "1. a\n2. b\n");
        CHECK_HTML("<ul start=3><li value=4>a</ul>", "- a\n");
}

TEST(tables)
{
        CHECK_HTML("<table><tr><th>Item<th>Price<tr><td>Tea<td>3.00 &euro;<tr><td colspan=2>Total</table>after", "Item  Price\nTea  3.00 \xe2\x82\xac\nTotal\n\nafter\n");
        CHECK_HTML("<table><tr><td>Name:<td>Ann<tr><td><td><tr><td>City:<td>Rome</table>", "Name:  Ann\nCity:  Rome\n");
        CHECK_HTML("<table><tr><td>a<td><ul><li>x<li>y</ul></table>", "a\n\n- x\n- y\n");
        CHECK_HTML("<dl><dt>Term<dd>What it is</dl>", "Term\nWhat it is\n");
}

TEST(entities)
{
        CHECK_HTML("&#128512; &#x1F600; &bogus; &amp &copy2024", "\xf0\x9f\x98\x80 \xf0\x9f\x98\x80 &bogus; & \xc2\xa9" "2024\n");
        CHECK_HTML("&#0;&#xD800;&#x110000;", "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\n");
        CHECK_HTML("&#147;quoted&#148; &#128;", "\xe2\x80\x9cquoted\xe2\x80\x9d \xe2\x82\xac\n"); /* as the HTML standard has them */
}

TEST(links_that_say_their_address)
{
        CHECK_HTML("<a href='http://www.example.org/'>www.example.org</a>", "www.example.org\n");
        CHECK_HTML("<a href='https://example.org/a?b=1&amp;c=2'>click</a> on", "click <https://example.org/a?b=1&c=2> on\n");
        CHECK_HTML("<a href='https://track.example.org/x'>https://bank.example</a>", "https://bank.example <https://track.example.org/x>\n");
        CHECK_HTML("<a href=' https://x.org '>a</a> <a name=b>b</a> <a href='tel:1'>c</a>", "a <https://x.org> b c\n");
        CHECK_HTML("<a href='https://x.org'><img src=a alt=Logo></a>", "Logo <https://x.org>\n");
        CHECK_HTML("<a href='https://x.org/\n>y'>a</a>", "a <https://x.org/y>\n");
}

TEST(quotes_and_pages)
{
        CHECK_HTML("Reply<div class=gmail_quote>On Monday X wrote:<blockquote>quoted<blockquote>deeper</blockquote></blockquote></div>",
                   "Reply\nOn Monday X wrote:\n\n> quoted\n\n> > deeper\n");
        CHECK_HTML("<details><summary>sum</summary>inner</details><figure><img src=x alt=pic><figcaption>cap</figcaption></figure>", "sum\ninner\npic\ncap\n");
        CHECK_HTML("a<script>\"</p>\"</script>b<noscript> c</noscript><iframe>d</iframe><template>e</template><select><option>f</select>", "ab c\n");
        CHECK_HTML("x<sup>2</sup> a<wbr>b", "x2 ab\n");
        CHECK_HTML("<plaintext>raw <b>", "raw <b>\n");
}

TEST(limit)
{
        struct buf out = BUF_INIT;
        struct err e;

        CHECK(html_text(STR("<p>\xc3\xa4\xc3\xa4\xc3\xa4</p>"), 3, &out, &e));
        CHECK_STR(buf_str(&out), "\xc3\xa4\n");
        buf_free(&out);
}

/* Depth, formatting elements that are opened again in every paragraph, attributes: whatever a tree builder is quadratic in. */
TEST(M01_hostile)
{
        static const char *const units[] = { "<div>", "<b>", "<p><b>", "<b><div></b>", "<table><td>", "<ul><li>", "</div>", "<font size=1>",
                                             "<a/b/c/d/e>", "<svg><a>", "<", "<!--", "&", "<x y='", "<p>x<font a=1><font b=2>",
                                             "<blockquote>", "<script>", "</", "<select><option>", "<a href=http://x>y" };

        for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
                struct buf html = BUF_INIT, out = BUF_INIT;
                struct err e;
                clock_t start = clock();

                for (int n = 0; n < 400; n++)
                        buf_printf(&html, i % 2 ? "<font size=%d>" : "<i class=%d>", n);
                while (html.n < 1 << 20)
                        buf_add_str(&html, str_of(units[i]));
                buf_printf(&html, " end");
                CHECK(html_text(buf_str(&html), 1 << 20, &out, &e));
                if (clock() - start > 2 * CLOCKS_PER_SEC) {
                        test_bad++;
                        printf("%s takes %ld ms\n", units[i], (long)((clock() - start) * 1000 / CLOCKS_PER_SEC));
                }
                buf_free(&html);
                buf_free(&out);
        }
}

TEST(one_tag_with_many_attributes)
{
        struct buf html = BUF_INIT, out = BUF_INIT;
        struct err e;
        clock_t start = clock();

        buf_printf(&html, "<p");
        for (int n = 0; n < 200000; n++)
                buf_printf(&html, " a%d=\"1\"", n);
        buf_printf(&html, ">text");
        CHECK(html_text(buf_str(&html), 1 << 20, &out, &e));
        CHECK_STR(buf_str(&out), "text\n");
        CHECK(clock() - start < CLOCKS_PER_SEC);
        buf_free(&html);
        buf_free(&out);
}

TEST(without_a_tree)
{
        struct buf html = BUF_INIT, out = BUF_INIT;
        struct err e;

        for (int n = 0; n < 1000; n++)
                buf_printf(&html, "<div>");
        buf_printf(&html, "<style>no</style>a&amp;b &#65; &nothing; <p>c<br>d<table><td>e<td>f</table>");
        CHECK(html_text(buf_str(&html), 1 << 20, &out, &e));
        CHECK_STR(buf_str(&out), "a&b A &nothing;\n\nc\nd\ne  f\n");
        buf_free(&html);
        buf_free(&out);
}

TEST(charset)
{
        CHECK_STR(html_charset(STR("<meta charset=\"koi8-r\">")), "koi8-r");
        CHECK_STR(html_charset(STR("<META content='text/html; charset=utf-8'>")), "utf-8");
        CHECK_STR(html_charset(STR("<p>none")), "");
        CHECK_STR(html_charset(STR("<meta name=x><meta http-equiv=y content='text/html;charset = \"koi8-r\"'>")), "koi8-r");
        CHECK_STR(html_charset(STR("<meta charset = ' utf-8 '>")), "utf-8");
        CHECK_STR(html_charset(STR("<meta charset=utf-16le>")), "utf-8"); /* it was read as ASCII so far */
        CHECK_STR(html_charset(STR("<form accept-charset=koi8-r><script charset=koi8-r></script>charset=koi8-r")), "");
        CHECK_STR(html_charset(STR("<meta charset><meta charset=><meta charset=\"")), "");
}

TEST_MAIN
