-- What was measured of a run, by update?
-- param run_id = 1: the run
SELECT r.name AS run, m.step, m.name, m.value
FROM metrics m
JOIN runs r USING (run_id)
WHERE m.run_id = $run_id
ORDER BY m.step, m.name, m.value;
