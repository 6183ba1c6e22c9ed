/* mailmill check: what is wrong with a script, all at once, before anything connects. */
#include <stdio.h>
#include <sysexits.h>

#include "core/log.h"
#include "lua/cli.h"

static int check_one(struct options *o, const char *name)
{
        struct engine *en;
        int code = EX_OK;

        o->script = o->script_name = name;
        en = cli_script(o, true, &code);
        if (en && !o->quiet)
                log_info("%s: nothing is wrong", name);
        engine_free(en);
        return code;
}

int cmd_check(struct options *o)
{
        struct str *names;
        struct err e = { 0 };
        size_t n;
        int worst = EX_OK;

        if (!options_refuse_unknown(o, &e))
                return cli_fail(&e);
        names = options_operands(o, &n);
        if (n == 0)
                return cli_usage("which script? mailmill check SCRIPT…");
        o->arg_n = 0;
        for (size_t i = 0; i < n; i++) {
                int code = check_one(o, names[i].p);
                worst = worst == EX_OK ? code : worst;
        }
        return worst;
}
