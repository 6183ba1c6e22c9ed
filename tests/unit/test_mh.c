#include "core/mutf7.h"
#include "core/sequences.h"
#include "tests/unit/archives.h"

TEST(folders_in_order_with_flags)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("Mail/inbox/.mh_sequences", STR("cur: 2\nunseen: 9-11 2\nflagged: 10\nreplied: 100 10\n"));
        write_file("Mail/inbox/10", STR("Subject: 2\n\n"));
        write_file("Mail/inbox/9", STR("Subject: 1\n\n"));
        write_file("Mail/inbox/100", STR("Subject: 3\r\n\r\nFrom here\r\n"));
        write_file("Mail/inbox/,11", STR("Subject: aside\n\n"));
        write_file("Mail/inbox/012", STR("Subject: no number\n\n"));
        write_file("Mail/inbox/sub/1", STR("no header"));
        write_file("Mail/inbox.old/1", STR("From a@x Mon Nov 23 05:41:00 2026\nSubject: 4\n\n"));
        get(&g, open_source("Mail", &e));
        CHECK(g.ok && g.finished && g.n == 5 && g.skipped == 1 && g.total_messages == 5);
        NEED(g.n == 5);
        CHECK_STR(subject_of(&g, 0), "1");
        CHECK_STR(subject_of(&g, 1), "2");
        CHECK_STR(text_of(&g, 2), "Subject: 3\n\nFrom here\n");
        CHECK_STR(message_origin(g.m[0])->flags, "");
        CHECK_STR(message_origin(g.m[1])->flags, "FR");
        CHECK_STR(message_origin(g.m[2])->flags, "RS");
        CHECK_STR(message_origin(g.m[2])->folder, "inbox");
        CHECK_STR(message_origin(g.m[2])->uid, "inbox/100");
        CHECK_STR(message_origin(g.m[2])->source, at("Mail/inbox/100"));
        CHECK_STR(message_origin(g.m[3])->folder, "inbox.old");
        CHECK_STR(message_origin(g.m[3])->flags, "");
        CHECK_STR(message_origin(g.m[4])->folder, "inbox/sub");
        for (size_t i = 0; i < g.n; i++)
                CHECK(message_origin(g.m[i])->number == i + 1);
        got_free(&g);
}

TEST(by_names_alone)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("d/2", STR("Subject: 1\n\n"));
        write_file("d/10", STR("Subject: 2\n\n"));
        write_file("d/11", STR("From a Mon Nov 23 05:41:00 2026\nSubject: 3\n\n\nFrom a Mon Nov 23 05:41:00 2026\nSubject: 4\n\n"));
        write_file("d/12", STR("")); /* in MH every number is a message */
        get(&g, open_source("d", &e));
        CHECK(g.ok && g.finished && g.n == 5);
        for (size_t i = 0; i < 4; i++)
                CHECK(*subject_of(&g, i).p == (char)('1' + i));
        got_free(&g);
        write_file("d/readme.txt", STR("and it is a folder of files\n"));
        get(&g, open_source("d", &e));
        CHECK(g.ok && g.n == 4 && g.skipped >= 1);
        got_free(&g);
}

TEST(B06_links_and_sockets)
{
        struct got g;
        struct err e;

        scratch_begin();
        write_file("d/1", STR("Subject: 1\n\n"));
        CHECK(symlink("1", at("d/2")) == 0 && mkfifo(at("d/3"), 0600) == 0 && symlink(".", at("d/loop")) == 0);
        write_file("d/.mh_sequences", STR("unseen: 1-99999999999999999999 1-18446744073709551615 7-3 x -4 5-\n\n:\nunseen\n"));
        get(&g, open_source("d", &e));
        CHECK(g.ok && !g.finished && g.n == 1 && warnings == 2 && strstr(g.finish_e.text, "2 entries"));
        NEED(g.n == 1);
        CHECK_STR(message_origin(g.m[0])->flags, "");
        got_free(&g);
}

TEST(sequences)
{
        static const char text[] = "unseen: 5-9 1 7-12 20\nflagged: 3\n";
        struct sequences s = { .of = { { .n = 0 } } };
        struct err e;
        char f[8];

        for (size_t n = 0; n < sizeof text; n++) {
                char *p = mem_dup(text, n);

                CHECK(sequences_read(&s, str_make(p, n), &e));
                mem_free(p);
        }
        for (uint64_t i = 0; i < 30; i++) {
                bool unseen = i == 1 || (i >= 5 && i <= 12) || i == 20;

                CHECK_STR(sequences_flags(&s, i, f), unseen ? "" : i == 3 ? "FS" : "S");
        }
        sequences_free(&s);
}

TEST(modified_utf7)
{
        static const char *const rows[][2] = {
                { "INBOX", "INBOX" }, { "Entw&APw-rfe", "Entw\xc3\xbcrfe" }, { "A&-B", "A&B" }, { "&U,BTFw-", "\xe5\x8f\xb0\xe5\x8c\x97" },
                { "~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/\xe5\x8f\xb0\xe5\x8c\x97/\xe6\x97\xa5\xe6\x9c\xac\xe8\xaa\x9e" },
                { "&2D3eAA-", "\xf0\x9f\x98\x80" }, { "&2D0-", "&2D0-" }, { "&3gA-", "&3gA-" }, { "R&D", "R&D" }, { "R&D-x", "R&D-x" },
                { "&AC8-", "&AC8-" }, { "&AAA-", "&AAA-" }, { "&", "&" }, { "", "" }, { "&APx-", "&APx-" }, { "Entw\xc3\xbcrfe", "Entw\xc3\xbcrfe" },
        };

        for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
                for (size_t n = 0; n <= strlen(rows[i][0]); n++) {
                        struct buf b = BUF_INIT;
                        char *p = mem_dup(rows[i][0], n);

                        CHECK(mutf7_decode(str_make(p, n), &b));
                        if (n == strlen(rows[i][0]))
                                CHECK_BYTES(buf_str(&b), str_of(rows[i][1]));
                        buf_free(&b);
                        mem_free(p);
                }
}

TEST(every_allocation_fails)
{
        struct err e;

        scratch_begin();
        write_file("d/.mh_sequences", STR("unseen: 1\n"));
        write_file("d/1", STR("Subject: 1\n\n"));
        write_file("d/s/1", STR("Subject: 2\n\n"));
        for (size_t n = 1; n < 300; n++) {
                struct message *m;
                struct source *s;

                mem_fail_at(n);
                e.code = ERR_NONE;
                s = open_source("d", &e);
                while (s && (m = NULL, s->ops->next(s, &m, &e)) && m)
                        message_free(m);
                source_free(s);
                mem_fail_at(0);
        }
}

TEST_MAIN
