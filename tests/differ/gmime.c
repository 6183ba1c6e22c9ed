/* What GMime says about each message: paths on standard input, a JSON object a line on standard output, for run.py. */
#include <gmime/gmime.h>
#include <stdio.h>
#include <string.h>

static void put_string(const char *s)
{
        if (!s) {
                fputs("null", stdout);
                return;
        }
        putchar('"');
        for (; *s; s++)
                if ((unsigned char)*s < 32 || *s == '"' || *s == '\\')
                        printf("\\u%04x", (unsigned)(unsigned char)*s);
                else
                        putchar(*s);
        putchar('"');
}

static void put_hash(GMimePart *p)
{
        GMimeStream *mem = g_mime_stream_mem_new();
        GMimeDataWrapper *w = g_mime_part_get_content(p);
        GByteArray *bytes;
        char *hash;

        if (w)
                g_mime_data_wrapper_write_to_stream(w, mem);
        bytes = g_mime_stream_mem_get_byte_array((GMimeStreamMem *)mem);
        hash = g_compute_checksum_for_data(G_CHECKSUM_SHA256, bytes->data, bytes->len);
        put_string(hash);
        g_free(hash);
        g_object_unref(mem);
}

static void put_leaves(GMimeObject *o, gboolean *first)
{
        GMimeContentType *t = g_mime_object_get_content_type(o);
        char *type;

        if (GMIME_IS_MULTIPART(o) && g_mime_multipart_get_count((GMimeMultipart *)o) > 0) {
                for (int i = 0; i < g_mime_multipart_get_count((GMimeMultipart *)o); i++)
                        put_leaves(g_mime_multipart_get_part((GMimeMultipart *)o, i), first);
                return;
        }
        if (GMIME_IS_MESSAGE_PART(o) && g_mime_message_part_get_message((GMimeMessagePart *)o)) {
                GMimeObject *root = g_mime_message_get_mime_part(g_mime_message_part_get_message((GMimeMessagePart *)o));

                if (root)
                        put_leaves(root, first);
                return;
        }
        type = g_ascii_strdown(g_mime_content_type_get_mime_type(t), -1);
        printf("%s{\"type\":", *first ? "" : ",");
        *first = FALSE;
        put_string(type);
        printf(",\"disposition\":");
        put_string(g_mime_object_get_disposition(o));
        printf(",\"name\":");
        put_string(GMIME_IS_PART(o) ? g_mime_part_get_filename((GMimePart *)o) : NULL);
        printf(",\"sha256\":");
        if (GMIME_IS_PART(o))
                put_hash((GMimePart *)o);
        else
                put_string(NULL);
        printf("}");
        g_free(type);
}

static void put_list(InternetAddressList *l, gboolean *first)
{
        for (int i = 0; l && i < internet_address_list_length(l); i++) {
                InternetAddress *a = internet_address_list_get_address(l, i);

                if (INTERNET_ADDRESS_IS_GROUP(a)) {
                        put_list(internet_address_group_get_members((InternetAddressGroup *)a), first);
                        continue;
                }
                printf("%s", *first ? "" : ",");
                put_string(internet_address_mailbox_get_addr((InternetAddressMailbox *)a));
                *first = FALSE;
        }
}

static void put_message(GMimeMessage *m)
{
        gboolean first = TRUE;

        printf("{\"subject\":");
        put_string(g_mime_message_get_subject(m));
        printf(",\"from\":[");
        put_list(g_mime_message_get_from(m), &first);
        printf("],\"to\":[");
        first = TRUE;
        put_list(g_mime_message_get_to(m), &first);
        printf("],\"parts\":[");
        first = TRUE;
        if (g_mime_message_get_mime_part(m))
                put_leaves(g_mime_message_get_mime_part(m), &first);
        printf("]}\n");
}

int main(void)
{
        char path[4096];

        g_mime_init();
        while (fgets(path, sizeof path, stdin)) {
                GError *e = NULL;
                GMimeStream *s;
                GMimeParser *p;
                GMimeMessage *m;

                path[strcspn(path, "\n")] = 0;
                s = g_mime_stream_file_open(path, "rb", &e);
                p = g_mime_parser_new_with_stream(s);
                m = g_mime_parser_construct_message(p, NULL);
                if (m) {
                        put_message(m);
                        g_object_unref(m);
                } else {
                        printf("null\n");
                }
                g_object_unref(p);
                g_object_unref(s);
        }
        g_mime_shutdown();
        return 0;
}
