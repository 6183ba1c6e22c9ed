#include <time.h>

#include "core/glob.h"
#include "core/mem.h"
#include "tests/unit/test.h"

#define YES(pattern, text) CHECK(glob_match(STR(pattern), STR(text)))
#define NO(pattern, text) CHECK(!glob_match(STR(pattern), STR(text)))

TEST(plain)
{
        YES("", "");
        NO("", "a");
        NO("a", "");
        YES("abc", "ABC");
        YES("ABC", "abc");
        NO("abc", "abcd");
        NO("abcd", "abc");
}

TEST(stars)
{
        YES("*", "");
        YES("**", "x");
        YES("*.pdf", "a.PDF");
        YES("*.pdf", ".pdf");
        NO("*.pdf", "a.pdf.exe");
        YES("*urgent*", "this is URGENT!");
        YES("a*b*c", "aXbXbXc");
        NO("a*b*c", "aXbX");
        YES("*a*a*", "banana");
        YES("*ana", "banana");
        YES("*@bank.example", "me@Bank.Example");
        YES("a*", "a\0b\n");
}

TEST(one_character)
{
        YES("?", "a");
        NO("?", "");
        NO("?", "ab");
        YES("a?c", "a\xc3\xa9" "c"); /* a character, not a byte */
        YES("?", "\xff");
        YES("*?", "x");
        NO("*?", "");
}

TEST(sets)
{
        YES("[a-c]x", "Bx");
        YES("[A-C]x", "bx");
        NO("[a-c]x", "dx");
        YES("[!a-c]x", "dx");
        NO("[^a-c]x", "Ax");
        YES("[]x]", "]");
        NO("[!]x]", "]");
        YES("[a-]", "-");
        YES("[a\\-z]", "-");
        NO("[a\\-z]", "c");
        YES("[\\]]", "]");
        YES("[\xc3\xa0-\xc3\xa9]", "\xc3\xa8");
        NO("[abc]", "");
        YES("[Fwd", "[fwd"); /* never closed: stands for itself */
        YES("*[0-9][0-9]", "a12");
        YES("[\\", "[\\");
}

TEST(escapes)
{
        YES("a\\*", "a*");
        NO("a\\*", "ab");
        YES("\\[x]", "[x]");
        YES("\\\\", "\\");
        YES("a\\", "a\\");
        NO("\\?", "a");
}

TEST(case_beyond_ascii)
{
        YES("\xc3\x84rger*", "\xc3\xa4RGERLICH");
        YES("*\xd0\xbf\xd1\x80\xd0\xb8*", "\xd0\x9f\xd0\xa0\xd0\x98\xd0\x92\xd0\x95\xd0\xa2");
        NO("\xc3\xa4", "a");
}

/* Many stars over a text that nearly fits: pattern times text, not two to the stars. */
TEST(many_stars_stay_cheap)
{
        enum { N = 100000 };
        char *text = mem_alloc(N);
        clock_t start = clock();

        NEED(text);
        memset(text, 'a', N);
        CHECK(!glob_match(STR("*a*a*a*a*a*a*a*a*a*a*a*a*a*a*a*b"), str_make(text, N)));
        CHECK(!glob_match(STR("*aaaaaaaaaaaaaaaaaaaaaaaaab*"), str_make(text, N)));
        CHECK(clock() - start < 2 * CLOCKS_PER_SEC);
        mem_free(text);
}

static const char *nearest(const char *name)
{
        static const char *const names[] = { "from", "subject", "attachment", "larger", "to", "leave_on_server" };
        const char *n = glob_nearest(str_of(name), names, sizeof names / sizeof names[0]);

        return n ? n : "none";
}

TEST(nearest_names)
{
        CHECK_STR(str_of(nearest("subjet")), "subject");
        CHECK_STR(str_of(nearest("form")), "from"); /* two letters exchanged */
        CHECK_STR(str_of(nearest("attachments")), "attachment");
        CHECK_STR(str_of(nearest("Subject")), "subject");
        CHECK_STR(str_of(nearest("leaveonserver")), "leave_on_server");
        CHECK_STR(str_of(nearest("too")), "to");
        CHECK_STR(str_of(nearest("body")), "none");
        CHECK_STR(str_of(nearest("x")), "none");
        CHECK_STR(str_of(nearest("")), "none");
        CHECK_STR(str_of(nearest("a name of more than sixty-four bytes, which cannot be one of our own names")), "none");
        CHECK(glob_nearest(STR("x"), NULL, 0) == NULL);
}

TEST_MAIN
