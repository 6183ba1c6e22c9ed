/* A date that can be read is in range, and written out it reads as the same. */
#include "core/date.h"
#include "core/fromline.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = fuzz_str(data, size);
        struct fromline from;
        int64_t t, again;
        int zone, same;
        char out[64];

        if (date_parse(in, &t, &zone)) {
                MUST(zone > -24 * 60 && zone < 24 * 60);
                MUST(t >= date_days(-1, 12, 31) * 86400 && t < date_days(10000, 1, 2) * 86400);
                date_format(t, zone, out);
                if (date_parse(str_of(out), &again, &same)) /* a zone may move it over the edge of year 9999 */
                        MUST(again == t && same == zone);
                else
                        MUST(t < date_days(0, 1, 2) * 86400 || t >= date_days(9999, 12, 31) * 86400);
        }
        if (date_duration(in, &t))
                MUST(t >= 0);
        if (fromline_parse(in, &from)) {
                MUST(str_starts(in, STR("From ")) && from.sender.n <= in.n);
                MUST(from.sender.n == 0 || (from.sender.p >= in.p && from.sender.p + from.sender.n <= in.p + in.n));
                MUST(from.dated + from.bare + from.odd <= 1 && (from.dated || from.odd || from.time == 0));
        }
        return 0;
}
