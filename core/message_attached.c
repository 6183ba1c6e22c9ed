/* Is this part a file that someone sent? Dispositions alone do not say: Apple Mail sends documents inline, signatures carry logos
 * as attachments, and reports, signatures and resource forks are machinery that nobody would save. */
#include "core/message_int.h"

#include "core/filename.h"

enum {
        PHOTO_BYTES = 100 * 1024, /* encoded: a picture shown in the text from this size on is a photograph, not decoration */
        LOGO_BYTES = 6 * 1024,    /* encoded: a picture up to this size is a logo or a pixel, no photograph or scan */
};

static bool is_any(struct str s, const char *const *words)
{
        for (; *words; words++)
                if (str_eq_nocase(s, str_of(*words)))
                        return true;
        return false;
}

static bool is_signature_type(struct str type)
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
                                             "text/x-amp-html", "text/rtf", "text/markdown", "text/x-markdown", NULL };

        return is_any(type, words);
}

static bool is_photo(struct str type)
{
        static const char *const words[] = { "image/jpeg", "image/jpg", "image/heic", "image/heif", "image/tiff", NULL };

        return is_any(type, words);
}

/* What a page is made of beside pictures: Outlook's leftovers of Word, style sheets, fonts. */
static bool is_page_matter(struct str type)
{
        static const char *const words[] = { "text/css", "application/x-mso", "application/vnd.ms-officetheme", NULL };

        return is_any(type, words) || str_starts(type, STR("font/")) || str_starts(type, STR("application/font-"));
}

static bool is_generic(struct str type)
{
        static const char *const words[] = { "application/octet-stream", "application/x-unknown", "application/binary", NULL };

        return is_any(type, words);
}

static struct str extension(struct str name)
{
        struct str stem, ext;

        filename_split(name, &stem, &ext);
        return ext;
}

/* By its type, or, where that says nothing, by its name. */
static bool is_image(struct str type, struct str name)
{
        static const char *const words[] = { "png", "gif", "jpg", "jpeg", "bmp", "svg", "webp", NULL };

        return str_starts(type, STR("image/")) || (is_generic(type) && is_any(extension(name), words));
}

/* A name that makes no file of a text: none, without an extension, or with that of a text (text/plain called report.xml.gz is a report). */
static bool is_name_of_text(struct str type, struct str name)
{
        static const char *const words[] = { "", "txt", "text", "htm", "html", "shtml", "md", NULL };
        struct str ext = extension(name);

        return is_any(ext, words) || (str_eq(type, STR("text/calendar")) && str_eq_nocase(ext, STR("ics")));
}

/* word, digits, and nothing more. */
static bool is_numbered(struct str stem, struct str word, size_t digits)
{
        struct str rest = str_from(stem, word.n);

        if (!str_starts_nocase(stem, word) || rest.n < digits)
                return false;
        for (size_t i = 0; i < rest.n; i++)
                if (!ascii_is_digit(rest.p[i]))
                        return false;
        return true;
}

/* Names that programs give to pieces of the text: Exchange, where Apple Mail had text behind a picture; Sympa's notes around a mail. */
static bool is_piece_of_text(struct str type, struct str name)
{
        static const char *const words[] = { "message-footer.txt", "message-header.txt", NULL };
        struct str stem, ext;

        filename_split(name, &stem, &ext);
        return is_reading_matter(type) && ext.n && is_name_of_text(type, name) && (is_any(name, words) || is_numbered(stem, STR("ATT"), 5));
}

/* Outlook and Word call pictures in the text image001.png. */
static bool is_picture_of_text(struct str name)
{
        struct str stem, ext;

        filename_split(name, &stem, &ext);
        return is_numbered(stem, STR("image"), 3);
}

static bool parent_is(const struct part *p, struct str type)
{
        return p->parent && p->parent->mime && str_eq(p->parent->mime->type, type);
}

/* The body of a message, or of one inside it, all by itself. */
static bool is_whole_body(const struct part *p)
{
        return !p->made && (!p->parent->mime || p->parent->mime->kind == MIME_MESSAGE);
}

static bool answer(struct str *reason, struct str why, bool attached)
{
        if (reason)
                *reason = why;
        return attached;
}

/* Of a signed message, not a signature that somebody sends along with a file. What is in its place and something else stays a file: else a
 * multipart/signed would hide it. */
static bool is_signature(struct part *p, struct str type, struct str name)
{
        static const char *const names[] = { "signature.asc", "signature.pgp", "smime.p7s", "openpgp_digital_signature.asc", NULL };

        if (is_any(name, names))
                return is_signature_type(type) || is_generic(type);
        return is_signature_type(type) && (!name.p || parent_is(p, STR("multipart/signed")) || parent_is(p, STR("multipart/encrypted")));
}

/* Parts that programs write for programs; NULL: none of these. */
static const char *machinery(struct part *p, struct str type, struct str name, bool declared)
{
        if (is_signature(p, type, name))
                return "signature";
        if (str_eq(type, STR("application/applefile")) && parent_is(p, STR("multipart/appledouble")))
                return "resource fork";
        if (is_report(type) && (!declared || parent_is(p, STR("multipart/report"))))
                return "report";
        if (str_eq(type, STR("message/external-body")))
                return "kept elsewhere";
        if (str_eq(type, STR("application/smil")) && !declared)
                return "layout";
        return NULL;
}

/* A picture: one that the html shows in its place, or a logo that nothing refers to any more. */
static bool judge_image(struct part *p, bool declared, struct str *reason, bool *attached)
{
        struct str name = part_name(p), id = part_id(p);
        bool shown = message_shows(p->m, id, parent_is(p, STR("multipart/related")) ? part_field(p, STR("Content-Location")) : STR_NONE);

        if (shown && p->body.n >= PHOTO_BYTES && name.p && (is_photo(p->mime->type) || declared))
                *attached = answer(reason, STR("photo shown by the html"), true);
        else if (shown)
                *attached = answer(reason, STR("shown by the html"), false);
        else if (p->body.n <= LOGO_BYTES && ((id.n && !declared) || is_picture_of_text(name))) /* Gmail gives every file an id */
                *attached = answer(reason, STR("small picture of the text"), false);
        else
                return false;
        return true;
}

/* Words to read: the text itself, in whatever form. */
static bool judge_text(struct part *p, struct str type, struct str name, struct str *reason, bool *attached)
{
        bool text = str_starts(type, STR("text/")) && is_name_of_text(type, name);

        if (parent_is(p, STR("multipart/alternative")) && (text || !name.p))
                *attached = answer(reason, STR("alternative"), false);
        else if (text && is_reading_matter(type) && (!name.p || is_whole_body(p)))
                *attached = answer(reason, STR("text"), false);
        else
                return false;
        return true;
}

bool part_attached(struct part *p, struct str *reason)
{
        struct str type = part_type(p), name;
        const char *why;
        bool declared, attached;

        if (part_is_container(p))
                return answer(reason, STR("container"), false);
        declared = str_eq(part_disposition(p), STR("attachment"));
        name = part_name(p);
        why = p->member.p ? NULL : machinery(p, type, name, declared);
        if (why)
                return answer(reason, str_of(why), false);
        if (p->body.n == 0 && !name.p)
                return answer(reason, STR("empty"), false);
        if (part_is_lumber(p))
                return answer(reason, STR("left by a file manager"), false);
        if (p->member.p && p->locked && p->packed < PACKED_PARTLY)
                return answer(reason, STR("encrypted in its archive"), false);
        if (p->member.p)
                return answer(reason, STR("in an archive"), true);
        if (is_piece_of_text(type, name))
                return answer(reason, STR("piece of the text"), false);
        if (is_image(type, name) && judge_image(p, declared, reason, &attached))
                return attached;
        if (is_page_matter(type) && message_shows(p->m, part_id(p), STR_NONE))
                return answer(reason, STR("shown by the html"), false);
        if (declared)
                return answer(reason, p->made ? STR("sent in a wrapper") : STR("declared an attachment"), true);
        if (judge_text(p, type, name, reason, &attached))
                return attached;
        if (name.p)
                return answer(reason, STR("named"), true);
        if (str_starts(type, STR("multipart/")))
                return answer(reason, STR("text"), false);
        return answer(reason, STR("not text"), true);
}
