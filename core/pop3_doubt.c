/* A server that leaves out an answer in a pipelined session makes each later message pass for the one before it. Sizes that are exact give
 * it away at once (pop3_answer.c), others do not: it shows only at the end, when an answer is missing. Then nothing of the session counts
 * as proof, not the DELEs either: it ends without QUIT, and every message that it gave is compared with its mark, by TOP, else by RETR. */
#include "core/pop3_int.h"

void fetch_doubt(struct fetch *f)
{
        for (size_t i = 0; i < f->n; i++) {
                struct mail *m = &f->mails[i];

                if (m->retrieved != f->session || m->state == MAIL_HELD || m->state == MAIL_UNDONE)
                        continue;
                m->doubted = true;
                if (m->state == MAIL_LEFT && m->cuts < CUTS_MAX) { /* the refusal may have been for another */
                        m->state = MAIL_WANT;
                        f->troubles -= m->troubled;
                        f->refusals = 0;
                }
        }
}

static struct str key_of(const uint8_t content[DIGEST_SIZE])
{
        return str_make((const char *)content, DIGEST_SIZE);
}

bool fetch_doubt_given(struct fetch *f, const uint8_t content[DIGEST_SIZE], struct err *e)
{
        if (!f->doubts && !(f->doubts = map_new()))
                return err_nomem(e);
        return map_set(f->doubts, key_of(content), (char *)map_get(f->doubts, key_of(content)) + 1, NULL) || err_nomem(e);
}

bool fetch_doubt_ends(struct fetch *f, struct mail *m, const uint8_t content[DIGEST_SIZE])
{
        char *given = f->doubts ? map_get(f->doubts, key_of(content)) : NULL;

        m->doubted = false;
        return given && map_set(f->doubts, key_of(content), given - 1, NULL);
}
