-- The rules of a script: one list, run in order for each message until m:stop().
local rules, finishers = {}, {}
local M = {}                         -- set_rule and stopped come from C

-- test: compiled by mail.match, or nil.
function M.add(name, test, action)
        rules[#rules + 1] = { name = name, test = test, action = action }
end

function M.add_finish(action)
        finishers[#finishers + 1] = action
end

function M.count()
        return #rules
end

function M.run(m)
        for i = 1, #rules do
                local rule = rules[i]
                local test = rule.test
                if not test or test(m) then
                        M.set_rule(rule.name)
                        rule.action(m)
                        if M.stopped() then return end
                end
        end
end

function M.finish(run)
        for i = 1, #finishers do finishers[i](run) end
end

return M
