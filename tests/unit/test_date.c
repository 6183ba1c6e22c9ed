#include "tests/unit/test.h"

#include "core/date.h"

static void check(const char *raw, int64_t want, int want_zone)
{
        int64_t t = -1;
        int zone = -1;

        if (!date_parse(str_of(raw), &t, &zone))
                printf("not read: %s\n", raw);
        CHECK(t == want);
        CHECK(zone == want_zone);
        if (t != want)
                printf("%s: %lld\n", raw, (long long)t);
}

static void check_none(const char *raw)
{
        int64_t t;

        if (date_parse(str_of(raw), &t, NULL)) {
                printf("read: %s\n", raw);
                CHECK(!"no date");
        }
}

TEST(rfc5322)
{
        check("Tue, 1 Jul 2003 10:52:37 +0200", 1057049557, 120);
        check("Fri, 21 Nov 1997 09:55:06 -0600", 880127706, -360);
        check("Tue, 30 Dec 1969 23:32:54 -0330", -75426, -210);
        check("Thu,\r\n   13\r\n  Feb\r\n    1969\r\n  23:32\r\n  -0330 (Newfoundland Time)", -27723480, -210);
        check("Tue, 1 Jul 2003 ((tricky)\n comment) 10:52:37 +0200", 1057049557, 120);
        check("1 jan 2021 09:55:06 +0200", 1609487706, 120);
        check("Mon, 23 Nov 2026 05:41:60 +0000", 1795412520, 0);
        check("17 May 2026 22:15:15 +1400", 1779005715, 840);
}

TEST(obsolete)
{
        check("21 Nov 97 09:55:06 GMT", 880106106, 0);
        check(" Wed, 27 Jun 99 04:11 +0900 ", 930424260, 540);
        check("Sun, 27 Oct 2002 23:57:07 EST", 1035781027, -300);
        check("Thu, 10 Jul 1997 14:53:31 A", 868546411, 0);
        check("Thu, 10 Jul 1997 14:53:31 ZZZZ", 868546411, 0);
        check("Fri, 21 Nov 1997 09(comment):   55  :  06 -0600", 880127706, -360); /* RFC 5322 A.6.3 */
        check("Fri, 21 Nov 1997 09 : 55 -0600", 880127700, -360);
        check("1 Jan 103 00:00:00 UT", 1041379200, 0);
}

TEST(the_wild)
{
        check("Fri Feb 07 10:18:12 2003 -0800", 1044641892, -480);
        check("Fri Feb  7 10:18:12 2003", 1044613092, 0);
        check("Fri Feb 07 10:18:12 PST 2003", 1044641892, -480);
        check("7-Feb-2003 10:18:12 +0000", 1044613092, 0);
        check("2003-02-07T10:18:12Z", 1044613092, 0);
        check("2003-02-07 10:18:12.345+01:00", 1044609492, 60);
        check("Fri, 7 Feb 2003 10.18.12 +0000", 1044613092, 0);
        check("Friday, February 7, 2003 10:18:12 PM GMT", 1044656292, 0);
        check("Fri, 7 Feb 2003 10:18:12 GMT+0100", 1044609492, 60);
        check("Fri, 7 Feb 2003", 1044576000, 0);
        check("\"Fri, 7 Feb 2003 10:18:12 \"PST\"", 1044641892, -480);
}

TEST(what_follows_a_whole_date)
{
        check("Thu, 20 Mar 03 10:06:43 +0100 for <asrg@ietf.org>", 1048151203, 60);
        check("Thu, 20 Mar 2003 10:06:43 +0100 (CET", 1048151203, 60);
        check("Thu, 20 Mar 2003 10:06:43 +0100; +9999", 1048151203, 60);
        check("Thu, 20 Mar 2003 10:06:43 +0100 \x01\xff", 1048151203, 60);
        check_none("Thu, 20 Mar 2003 10:06:43 <x>");
        check_none("Thu, 20 Mar 2003 <x> 10:06:43 +0100");
}

TEST(H12_hostile)
{
        char *p = malloc(1 << 20);
        int64_t t;

        check_none("");
        check_none("some numbers 0 1 2 but invalid");
        check_none("Mon, 1 Jan 99999999999 00:00:00 +0000");
        check_none("Mon, 1 Jan 10000 00:00:00 +0000");
        check_none("Fri, 31 Feb 2003 10:18:12 +0000");
        check_none("Fri, 29 Feb 2003 10:18:12 +0000");
        check_none("0 Feb 2003 10:18:12 +0000");
        check_none("Fri, 7 Feb 2003 10:18:12 +9999");
        check_none("Fri, 7 Feb 2003 10:18:12 +2400");
        check_none("Fri, 7 Feb 2003 10:18:12 +0060");
        check_none("Fri, 7 Feb 2003 24:00:00 +0000");
        check_none("Fri, 7 Feb 2003 10:60:00 +0000");
        check_none("Fri, 7 Feb 2003 10:18:61 +0000");
        check_none("13 zzz 2021 09:55:06 +0200");
        check_none("Tue, 7 00 2026 19:14:51 +0000");
        check_none("Tue, 1 Jul 2003 ((unclosed) 10:52:37 +0200");
        CHECK(!date_parse(STR("Fri, 7 Feb 2003\0 10:18:12 +0000"), &t, NULL));
        NEED(p);
        memset(p, '1', 1 << 20);
        CHECK(!date_parse(str_make(p, 1 << 20), &t, NULL));
        memset(p, '(', 1 << 20);
        CHECK(!date_parse(str_make(p, 1 << 20), &t, NULL));
        free(p);
}

TEST(every_cut)
{
        static const char *const all[] = { "Tue, 1 Jul 2003 (c) 10:52:37 +02:00", "2003-02-07T10:18:12.3Z", "Fri Feb 07 10:18:12 PST 2003", "7-Feb-03 10.18" };

        for (size_t i = 0; i < 4; i++)
                for (size_t n = 0; n <= strlen(all[i]); n++) {
                        char *copy = malloc(n ? n : 1);
                        int64_t t;

                        memcpy(copy, all[i], n);
                        (void)date_parse(str_make(copy, n), &t, NULL);
                        free(copy);
                }
}

TEST(days_and_back)
{
        CHECK(date_days(1970, 1, 1) == 0);
        CHECK(date_days(2000, 3, 1) == 11017);
        CHECK(date_days(0, 1, 1) == -719528);
        CHECK(date_days(9999, 12, 31) == 2932896);
        for (int64_t day = -719528; day <= 2932896; day += 97) {
                char text[64];
                int64_t t;

                date_format(day * 86400 + 3661, -90, text);
                if (!date_parse(str_of(text), &t, NULL) || t != day * 86400 + 3661) {
                        CHECK(day == -719528); /* an hour and a half west of the year 0 */
                }
        }
}

TEST(writing)
{
        char text[64];

        date_format(1795412460, 0, text);
        CHECK_STR(str_of(text), "Mon, 23 Nov 2026 05:41:00 +0000");
        date_format(1795412460, -210, text);
        CHECK_STR(str_of(text), "Mon, 23 Nov 2026 02:11:00 -0330");
        date_format(-1, 60, text);
        CHECK_STR(str_of(text), "Thu, 01 Jan 1970 00:59:59 +0100");
}

TEST(durations)
{
        int64_t s;

        CHECK(date_duration(STR("20 min"), &s) && s == 1200);
        CHECK(date_duration(STR("30 days"), &s) && s == 30 * 86400);
        CHECK(date_duration(STR("2 weeks"), &s) && s == 14 * 86400);
        CHECK(date_duration(STR("1 year"), &s) && s == 365 * 86400);
        CHECK(date_duration(STR("14d"), &s) && s == 14 * 86400);
        CHECK(date_duration(STR(" 36 h "), &s) && s == 36 * 3600);
        CHECK(!date_duration(STR("14"), &s) && !date_duration(STR("days"), &s) && !date_duration(STR(""), &s));
        CHECK(!date_duration(STR("-1 day"), &s) && !date_duration(STR("1 fortnight"), &s));
        CHECK(!date_duration(STR("99999999999999999999 days"), &s) && !date_duration(STR("9223372036854775807 days"), &s));
}

TEST_MAIN
