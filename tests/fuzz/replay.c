/* Runs files, and all files of folders, through a target without a fuzzer. usage: NAME FILE|FOLDER … */
#include <ftw.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

static unsigned ran;

static int run(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
        FILE *f = flag == FTW_F ? fopen(path, "rb") : NULL;
        uint8_t *p = f ? malloc((size_t)st->st_size + 1) : NULL;
        size_t n = p ? fread(p, 1, (size_t)st->st_size, f) : 0;

        (void)ftw;
        if (p) {
                uint8_t *exact = (uint8_t *)fuzz_copy(str_make((const char *)p, n)); /* a look behind its end is seen */

                printf("%s\n", path);
                fflush(stdout);
                LLVMFuzzerTestOneInput(exact, n);
                mem_free(exact);
                ran++;
        }
        free(p);
        if (f)
                fclose(f);
        return 0;
}

int main(int argc, char **argv)
{
        for (int i = 1; i < argc; i++)
                nftw(argv[i], run, 16, FTW_PHYS);
        printf("%u passed, 0 failed\n", ran); /* a target that fails does not come here */
        return ran == 0;
}
