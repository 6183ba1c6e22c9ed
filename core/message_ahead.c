/* What a script asks of one message it mostly asks of the next: found by the thread that reads, it is there when it is asked for. */
#include "core/message_int.h"

unsigned message_asked(const struct message *m)
{
        return m->asked;
}

static void look(struct message *m, unsigned asked)
{
        if (asked & ASKED_FROM)
                message_addresses(m, STR("From"));
        if (asked & ASKED_TO)
                message_addresses(m, STR("To"));
        if (asked & ASKED_CC)
                message_addresses(m, STR("Cc"));
        if (asked & ASKED_SUBJECT)
                message_subject(m);
        if (asked & ASKED_DATE)
                message_date(m);
        if (asked & ASKED_ID)
                message_id(m);
        for (size_t i = 0; (asked & (ASKED_FACTS | ASKED_SIZES)) && i < m->leaves_n; i++) {
                if (asked & ASKED_FACTS)
                        part_charset(m->leaves[i]);
                if (asked & ASKED_SIZES)
                        part_size(m->leaves[i]);
        }
}

/* As if nothing had been looked at. */
static void forget(struct message *m, unsigned defects)
{
        m->defects.count = defects;
        m->trouble.code = ERR_NONE;
        m->memos = NULL;
        m->date_known = false;
        if (m->decoded)
                memset(m->decoded, 0, m->h.count * sizeof *m->decoded);
        for (size_t i = 0; i < m->leaves_n; i++)
                m->leaves[i]->facts_read = m->leaves[i]->size_known = false;
}

/* A defect counts when what has it is asked for: a message is held because of what its handler saw, not of what it might have seen. */
void message_look_ahead(struct message *m, unsigned asked)
{
        unsigned defects = m->defects.count;
        struct str bytes;

        if (!m->parsed || m->asked || !range_in_memory(m->r, &bytes))
                return;
        look(m, asked);
        if (m->defects.count != defects || m->trouble.code != ERR_NONE)
                forget(m, defects);
        m->asked = 0;
}
