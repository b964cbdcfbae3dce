-- What a run reached: the last value of each of its metrics. `task_label` tells its task from others of its sweep, which may
-- have one task twice, of other files or with fewer examples.
CREATE OR REPLACE VIEW run_scores AS
SELECT
    r.run_id, r.name AS run, r.method, r.task, r.seed, r.subject_id,
    m.name AS metric, max(m.step) AS step, arg_max(m.value, m.step) AS value,
    r.sweep, r.label, r.r, r.model, r.status, r.parameters, r.head_parameters,
    coalesce(r.spec -> 'task' ->> 'label', r.task) AS task_label
FROM runs r
JOIN metrics m USING (run_id)
GROUP BY ALL;

-- The score of each subject: the one given, as JSON [{"subject_id": 3, "score": 78.4}, ...], or else the mean of
-- the last values of this metric over the subject's runs. `task` is the label of their task, NULL if that is not known or
-- they have several: scores of two tasks are not to be compared.
CREATE OR REPLACE MACRO subject_scores(metric_name, given) AS TABLE
WITH told AS (
    SELECT row.subject_id, row.score
    FROM (SELECT unnest(from_json(given::JSON, '[{"subject_id": "INTEGER", "score": "DOUBLE"}]')) AS row)
),
reached AS (
    SELECT
        subject_id,
        avg(value) FILTER (metric = metric_name) AS score,
        CASE WHEN min(task_label) = max(task_label) THEN min(task_label) END AS task
    FROM run_scores
    GROUP BY subject_id
)
SELECT subject_id, coalesce(told.score, reached.score) AS score, reached.task
FROM told
FULL JOIN reached USING (subject_id)
WHERE subject_id IS NOT NULL;
