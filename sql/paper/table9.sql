-- Which tasks of GLUE is a model adapted to, and what is the score of each (Table 9)?
-- param paper = NULL: the paper's tasks and ours, as JSON; gaussmeter paper gives them
-- `metric` is what we take for the score: `matthews` is Matthews' correlation, `correlation` the mean of Pearson's and
-- Spearman's; F1 is measured beside the accuracy, as the metric `f1`. `evaluated_on` is the part of the data set; `runs` are those of the warehouse that are complete.
WITH paper AS (
    SELECT unnest(from_json(coalesce($paper, '[]')::JSON, '[{"number": "INTEGER", "task": "VARCHAR", "title": "VARCHAR",
        "labels": "INTEGER", "metric": "VARCHAR", "evaluated_on": "VARCHAR", "paper_group": "VARCHAR",
        "paper_kind": "VARCHAR", "paper_train": "VARCHAR", "paper_dev": "VARCHAR", "paper_test": "VARCHAR",
        "paper_labels": "INTEGER", "paper_metrics": "VARCHAR"}]'), recursive := true)
)
SELECT
    p.task, p.title, p.labels, p.metric, p.evaluated_on,
    (SELECT count(*) FROM runs r WHERE r.task = p.task AND r.status = 'complete') AS runs,
    p.paper_group, p.paper_kind, p.paper_train, p.paper_dev, p.paper_test, p.paper_labels, p.paper_metrics
FROM paper p
ORDER BY p.number;
