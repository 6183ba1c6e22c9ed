#include "core/foreign.h"

static const struct foreign { struct str begin; const char *why, *name; } kinds[] = { /* name: "" any */
        { { "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", 8 }, "an Outlook message (.msg), or another OLE file; convert it to .eml first (msgconvert does)",
          ".msg" },
        { { "!BDN", 4 }, "an Outlook data file (.pst); convert it to mbox first (readpst does)", "" },
        { { "\xcf\xad\x12\xfe", 4 }, "an Outlook Express folder (.dbx); convert it to mbox first (undbx does)", "" },
        { { "7z\xbc\xaf\x27\x1c", 6 }, "a 7-Zip archive; unpack it first", "" },
        { { "Rar!\x1a\x07", 6 }, "a RAR archive; unpack it first", "" },
        { { "SQLite format 3\0", 16 }, "an SQLite database, not mail", NULL },
        { { "%PDF-", 5 }, "a PDF document, not mail", NULL },
};

static const struct foreign *find(struct str head)
{
        for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
                if (str_starts(head, kinds[i].begin))
                        return &kinds[i];
        return NULL;
}

const char *foreign_why(struct str head)
{
        const struct foreign *f = find(head);

        return f ? f->why : NULL;
}

bool foreign_holds_mail(struct str head, struct str name)
{
        const struct foreign *f = find(head);

        return f && f->name && str_ends_nocase(name, str_of(f->name));
}

/* The character behind the mark tells it from bytes that only begin alike. */
bool foreign_is_utf16(struct str head)
{
        if (head.n < 4)
                return false;
        return (str_starts(head, STR("\xff\xfe")) && head.p[2] && !head.p[3]) || (str_starts(head, STR("\xfe\xff")) && !head.p[2] && head.p[3]);
}
