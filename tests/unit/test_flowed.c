#include "core/flowed.h"

#include "tests/unit/test.h"

static void check(int line, const char *in, bool delsp, const char *want)
{
        struct buf out = BUF_INIT;

        CHECK(flowed_unwrap(str_of(in), delsp, &out));
        test_same(__FILE__, line, in, out.n ? buf_str(&out) : STR(""), str_of(want));
        buf_free(&out);
}
#define UNWRAPS(in, want) check(__LINE__, in, false, want)

TEST(paragraphs)
{
        UNWRAPS("", "");
        UNWRAPS("one \ntwo \nthree\nfour\n", "one two three\nfour\n");
        UNWRAPS("no end ", "no end ");
        UNWRAPS("end \n", "end \n");
        UNWRAPS("a \n\nb\n", "a \n\nb\n");
}

TEST(stuffing)
{
        UNWRAPS(" From me\n  two blanks\n >not quoted\n", "From me\n two blanks\n>not quoted\n");
}

TEST(quotes)
{
        UNWRAPS("> a \n> b\n>> c \n> d \ne\n", "> a b\n>> c \n> d \ne\n");
}

TEST(signature)
{
        UNWRAPS("text \n-- \nMe \nand you\n", "text \n-- \nMe and you\n");
        UNWRAPS("> -- \n> x\n", "> -- \n> x\n");
}

TEST(delsp)
{
        check(__LINE__, "\xe6\xbc\xa2 \n\xe5\xad\x97\n", true, "\xe6\xbc\xa2\xe5\xad\x97\n");
}

TEST_MAIN
