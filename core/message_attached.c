/* Is this part a file that someone sent? Dispositions alone do not say: Apple Mail sends documents inline, signatures carry logos
 * as attachments, and reports, signatures and resource forks are machinery that nobody would save. */
#include "core/message_int.h"

enum { PHOTO_BYTES = 100 * 1024 }; /* a picture shown in the text from this size on is a photograph, not decoration */

static bool is_any(struct str s, const char *const *words)
{
        for (; *words; words++)
                if (str_eq(s, str_of(*words)))
                        return true;
        return false;
}

static bool is_signature(struct str type)
{
        static const char *const words[] = { "application/pgp-signature", "application/pkcs7-signature",
                                             "application/x-pkcs7-signature", "application/pgp-encrypted", NULL };

        return is_any(type, words);
}

static bool is_report(struct str type)
{
        static const char *const words[] = { "message/delivery-status", "message/disposition-notification",
                                             "message/feedback-report", "text/rfc822-headers",
                                             "message/global-delivery-status", "message/global-headers", NULL };

        return is_any(type, words);
}

static bool is_reading_matter(struct str type)
{
        static const char *const words[] = { "text/plain", "text/html", "text/enriched", "text/richtext", "text/watch-html",
                                             "text/x-amp-html", "text/rtf", NULL };

        return is_any(type, words);
}

static bool is_photo(struct str type)
{
        static const char *const words[] = { "image/jpeg", "image/jpg", "image/heic", "image/heif", "image/tiff", NULL };

        return is_any(type, words);
}

static bool parent_is(const struct part *p, struct str type)
{
        return p->parent && p->parent->mime && str_eq(p->parent->mime->type, type);
}

static bool answer(struct str *reason, struct str why, bool attached)
{
        if (reason)
                *reason = why;
        return attached;
}

/* An image that the html shows in its place. */
static bool judge_shown(struct part *p, bool declared, struct str *reason)
{
        bool large = p->body.n >= PHOTO_BYTES;

        if (large && part_name(p).p && (is_photo(p->mime->type) || declared))
                return answer(reason, STR("photo shown by the html"), true);
        return answer(reason, STR("shown by the html"), false);
}

bool part_attached(struct part *p, struct str *reason)
{
        struct str type = part_type(p), disposition, name;
        bool declared;

        if (part_is_container(p))
                return answer(reason, STR("container"), false);
        disposition = part_disposition(p);
        name = part_name(p);
        declared = str_eq(disposition, STR("attachment"));
        if (is_signature(type))
                return answer(reason, STR("signature"), false);
        if (str_eq(type, STR("application/applefile")) && parent_is(p, STR("multipart/appledouble")))
                return answer(reason, STR("resource fork"), false);
        if (is_report(type) && !declared)
                return answer(reason, STR("report"), false);
        if (p->body.n == 0 && !name.p)
                return answer(reason, STR("empty"), false);
        if (str_starts(type, STR("image/")) && message_shows(p->m, part_id(p)))
                return judge_shown(p, declared, reason);
        if (part_is_lumber(p))
                return answer(reason, STR("left by a file manager"), false);
        if (p->member.p && p->locked && p->packed < PACKED_PARTLY)
                return answer(reason, STR("encrypted in its archive"), false);
        if (p->member.p)
                return answer(reason, STR("in an archive"), true);
        if (declared && p->made)
                return answer(reason, STR("sent in a wrapper"), true);
        if (declared)
                return answer(reason, STR("declared an attachment"), true);
        if (name.p)
                return answer(reason, STR("named"), true);
        if (parent_is(p, STR("multipart/alternative")))
                return answer(reason, STR("alternative"), false);
        if (is_reading_matter(type) || str_starts(type, STR("multipart/")))
                return answer(reason, STR("text"), false);
        return answer(reason, STR("not text"), true);
}
