#include "tests/unit/test.h"

#include "core/buf.h"
#include "core/charset.h"
#include "core/filename.h"
#include "core/mem.h"

static struct arena *a;
static unsigned flags;

static struct str clean_bytes(struct str name)
{
        struct str once, twice;

        arena_free(a);
        a = arena_new(0);
        flags = 0;
        once = filename_clean(name, &flags, a);
        twice = filename_clean(once, NULL, a);
        CHECK(once.p && twice.p);
        CHECK_BYTES(twice, once);
        return once;
}

static struct str clean(const char *name)
{
        return clean_bytes(str_of(name));
}

TEST(ordinary_names_stay)
{
        static const char *const names[] = { "report.pdf", "a b (2).tar.gz", "J\xc3\xb6rn's 100% #1!.txt", "\xe3\x81\x93.txt", "+x=y,z@[1]~.txt", "_x" };

        for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
                CHECK_STR(clean(names[i]), names[i]);
                CHECK(flags == 0);
        }
}

TEST(F01_paths)
{
        CHECK_STR(clean("../../etc/cron.d/x"), "x");
        CHECK_STR(clean("..\\..\\x"), "x");
        CHECK_STR(clean("/abs/x"), "x");
        CHECK_STR(clean("C:\\x"), "x");
        CHECK_STR(clean("\\\\srv\\s\\x"), "x");
        CHECK_STR(clean("~/x"), "x");
        CHECK(flags & FILENAME_CHANGED);
        CHECK_STR(clean("C:x"), "C_x");
}

TEST(F02_nothing)
{
        static const char *const names[] = { "", ".", "..", "...", "/", "a/", "   ", ". .", "\t\n", "\xe2\x80\x8b", "\xc2\xa0" };

        for (size_t i = 0; i < sizeof names / sizeof *names; i++)
                CHECK_STR(clean(names[i]), "");
}

TEST(F03_nul)
{
        CHECK_STR(clean_bytes(STR("a\0b.txt")), "a_b.txt");
}

TEST(F04_directions)
{
        CHECK_STR(clean("inv\xe2\x80\xae" "fdp.exe"), "invfdp.exe");
        CHECK(flags & FILENAME_BIDI);
        CHECK_STR(clean("\xe2\x81\xa6x\xe2\x81\xa9\xe2\x80\x8f\xef\xbb\xbf.txt"), "x.txt");
        CHECK_STR(clean("e\xe2\x80\x8d\xcc\x81"), "\xc3\xa9"); /* removing brings letter and accent together */
}

TEST(F05_controls)
{
        CHECK_STR(clean("a\x1b[2J\r\nX.txt"), "a_[2J__X.txt");
        CHECK_STR(clean("a\xc2\x85" "b\x7f" "c\xe2\x80\xa8"), "a_b_c_");
}

TEST(F06_F07_starts)
{
        CHECK_STR(clean("-rf"), "_-rf");
        CHECK_STR(clean("--checkpoint-action=exec=x"), "_--checkpoint-action=exec=x");
        CHECK_STR(clean(".bashrc"), "_bashrc");
        CHECK_STR(clean(".htaccess"), "_htaccess");
        CHECK_STR(clean(".ssh/authorized_keys"), "authorized_keys");
        CHECK_STR(clean("..a"), "_.a");
        CHECK_STR(clean(" .a"), "_a");
        CHECK_STR(clean("\xe2\x80\x8b.a"), "_a");
}

TEST(F08_devices)
{
        CHECK_STR(clean("CON"), "_CON");
        CHECK_STR(clean("nul.txt"), "_nul.txt");
        CHECK_STR(clean("COM1.log"), "_COM1.log");
        CHECK_STR(clean("LPT9"), "_LPT9");
        CHECK_STR(clean("com\xc2\xb9"), "_com\xc2\xb9");
        CHECK_STR(clean("aux."), "_aux");
        CHECK_STR(clean("con .txt"), "_con .txt");
        CHECK_STR(clean("CONIN$"), "_CONIN_");
        CHECK_STR(clean("console.txt"), "console.txt");
        CHECK_STR(clean("com10"), "com10");
}

TEST(F09_ends)
{
        CHECK_STR(clean("a.txt . "), "a.txt");
        CHECK_STR(clean("a."), "a");
        CHECK_STR(clean("a\t\t"), "a");
        CHECK_STR(clean("a.txt::$DATA"), "a.txt___DATA");
}

TEST(F10_shells)
{
        CHECK_STR(clean("a<b>c|d?e*f\"g"), "a_b_c_d_e_f_g");
        CHECK_STR(clean("`x`$(id);id&"), "_x__(id)_id_");
        CHECK_STR(clean("a\xcd\xbe" "b\xe1\xbf\xaf"), "a_b_"); /* become ';' and '`' in NFC */
}

TEST(F11_long)
{
        char name[700];
        struct str s;

        memset(name, 'L', 300);
        memcpy(name + 300, ".txt", 5);
        s = clean(name);
        CHECK(s.n == 200 && str_ends(s, STR("L.txt")));
        for (int i = 0; i < 300; i++)
                memcpy(name + i * 2, "\xc3\xa9", 2);
        memcpy(name + 600, ".pdf", 5);
        s = clean(name);
        CHECK(s.n <= 200 && s.n >= 199 && utf8_valid(s) && str_ends(s, STR("\xc3\xa9.pdf")));
        memset(name, 'x', 255);
        CHECK(clean_bytes(str_make(name, 255)).n == 200);
        memset(name, 'e', 300);
        memcpy(name, "x.", 2);
        CHECK(clean_bytes(str_make(name, 300)).n == 200);
        memset(name, ' ', 300);
        memset(name, 'x', 190);
        memcpy(name + 195, "yyyyyyyyyyyyyy.txt", 18);
        s = clean_bytes(str_make(name, 213));
        CHECK(str_ends(s, STR(".txt")) && s.n <= 200);
}

TEST(F12_invalid)
{
        CHECK_STR(clean("a\xff.txt"), "a_.txt");
        CHECK_STR(clean("a\xed\xa0\x80.txt"), "a___.txt");
        CHECK_STR(clean("\xc0\xae\xc0\xae\xc0\xaf" "x"), "______x");
}

TEST(F13_composed)
{
        CHECK_STR(clean("e\xcc\x81.txt"), "\xc3\xa9.txt");
        CHECK_STR(clean("\xc3\xa9.txt"), "\xc3\xa9.txt");
        CHECK(flags == 0);
}

TEST(F16_mixed_scripts)
{
        clean("\xd1\x80\xd0\xb0ypal.exe");
        CHECK(flags & FILENAME_MIXED);
        CHECK_STR(clean("\xd0\xa1\xd0\xbf\xd0\xb8\xd1\x81\xd0\xbe\xd0\xba.doc"), "\xd0\xa1\xd0\xbf\xd0\xb8\xd1\x81\xd0\xbe\xd0\xba.doc");
        CHECK(flags == 0);
}

TEST(F17_F18_flags)
{
        char name[200];

        snprintf(name, sizeof name, "invoice.pdf%80s.exe", "");
        CHECK_STR(clean(name), "invoice.pdf .exe");
        CHECK(flags & FILENAME_SPACES);
        CHECK_STR(clean("a  b\xe3\x80\x80" "c.txt"), "a b c.txt");
        CHECK(!(flags & FILENAME_SPACES));
        clean("x.{645FF040-5081-101B-9F08-00AA002F954E}");
        CHECK(flags == FILENAME_CLSID);
        clean("x.{{645FF040-5081-101B-9F08-00AA002F954}");
        CHECK(flags == 0);
}

TEST(values)
{
        arena_free(a);
        a = arena_new(0);
        CHECK_STR(filename_clean_value(STR("../../x"), a), "_._.._x");
        CHECK_STR(filename_clean_value(STR(".."), a), "");
        CHECK_STR(filename_clean_value(STR("a/b\\c"), a), "a_b_c");
        CHECK_STR(filename_clean_value(STR("-x"), a), "_-x");
        CHECK_STR(filename_clean_value(STR(""), a), "");
}

TEST(split_and_number)
{
        struct str stem, ext;
        char longer[201];

        filename_split(STR("report.tar.gz"), &stem, &ext);
        CHECK_STR(stem, "report.tar");
        CHECK_STR(ext, "gz");
        filename_split(STR("README"), &stem, &ext);
        CHECK_STR(stem, "README");
        CHECK_STR(ext, "");
        filename_split(STR("a."), &stem, &ext);
        CHECK_STR(ext, "");
        filename_split(STR("Mr. Smith"), &stem, &ext);
        CHECK_STR(ext, "");
        filename_split(STR("x.abcdefghijklmnopq"), &stem, &ext);
        CHECK_STR(ext, "");
        filename_split(STR(".x"), &stem, &ext);
        CHECK_STR(stem, ".x");
        arena_free(a);
        a = arena_new(0);
        CHECK_STR(filename_number(STR("name.ext"), 2, a), "name (2).ext");
        CHECK_STR(filename_number(STR("name"), 10000, a), "name (10000)");
        memset(longer, 'x', 200);
        memcpy(longer + 196, ".txt", 5);
        CHECK(filename_number(str_of(longer), 77, a).n == 200);
        CHECK(str_ends(filename_number(str_of(longer), 77, a), STR("x (77).txt")));
}

/* Whatever comes in: one component, valid, short, without a bad start or end. */
static void check_safe(struct str s)
{
        CHECK(utf8_valid(s) && s.n <= 200);
        if (s.n == 0)
                return;
        CHECK(s.p[0] != '.' && s.p[0] != '-' && s.p[0] != ' ' && s.p[s.n - 1] != '.' && s.p[s.n - 1] != ' ');
        for (size_t i = 0; i < s.n; i++)
                CHECK((unsigned char)s.p[i] >= 32 && s.p[i] != 127 && !memchr("/\\:*?\"<>|`$;&", s.p[i], 13));
}

TEST(anything)
{
        static const char *const bits[] = { ".", "/", "\\", " ", "-", "a", "con", ".txt", "\xcc\x81", "\xe2\x80\x8d", "\xff", "e", ";", "\xe1\x84\x92",
                "\xe1\x85\xa1", "\xe1\x86\xab", "\xcd\xbe", "\n", "\xc2\xa0", "_", "$", "1", "\xf3\xa0\x80\xa0", "LLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLLL" };
        uint32_t seed = 1;

        for (int round = 0; round < 20000; round++) {
                char name[400];
                size_t n = 0;

                for (int i = 0; i < 10; i++) {
                        const char *bit;

                        seed = seed * 1664525u + 1013904223u;
                        bit = bits[(seed >> 16) % (sizeof bits / sizeof *bits)];
                        memcpy(name + n, bit, strlen(bit));
                        n += strlen(bit);
                }
                check_safe(clean_bytes(str_make(name, n)));
        }
}

TEST(linear)
{
        enum { N = 1 << 20 };
        char *p = malloc(N);

        NEED(p);
        for (int i = 0; i < N; i++)
                p[i] = "\xcc\x81{"[i % 3];
        clean_bytes(str_make(p, N));
        memset(p, '.', N);
        CHECK(clean_bytes(str_make(p, N)).n == 0);
        free(p);
}

/* The n-th piece of memory, alone or with all after it. */
static void out_of_memory(size_t many)
{
        size_t n;
        struct str s = STR_NONE;

        for (n = 1; n < 30 && !s.p; n++) {
                struct arena *one = arena_new(0);

                mem_fail_here(n, many);
                s = filename_clean(STR("e\xcc\x81 x.txt"), NULL, one);
                mem_fail_here(0, 0);
                if (s.p)
                        CHECK_STR(s, "\xc3\xa9 x.txt");
                CHECK(arena_ran_out(one) == !s.p);
                arena_free(one);
        }
        CHECK(s.p && n > 2);
}

TEST(T4_out_of_memory)
{
        out_of_memory(SIZE_MAX);
        out_of_memory(1);
        arena_free(a);
        a = NULL;
}

TEST_MAIN
