-- Views and macros over one mix, for any DuckDB client. From the folder above data_manifests/:
--
--   SET VARIABLE manifest = 'data_manifests/mix70.json';
--   .read curation/composition.sql          (in Python: duckdb.sql(open('curation/composition.sql').read()))
--   FROM share_by('license');
--
-- Shard paths are relative to the folder above the manifest's; set variable root first to work from elsewhere.

SET VARIABLE root = coalesce(
    getvariable('root'), nullif(regexp_replace(getvariable('manifest'), '/?[^/]*/[^/]*$', ''), getvariable('manifest')), ''
);
CREATE OR REPLACE TEMP TABLE mix_shards AS
SELECT split, path, CASE WHEN getvariable('root') = '' THEN path ELSE getvariable('root') || '/' || path END AS file
FROM (
    SELECT 'train' AS split, unnest(splits.train).path AS path FROM read_json(
        getvariable('manifest'), columns = {splits: 'STRUCT(train STRUCT(path VARCHAR)[], val STRUCT(path VARCHAR)[])'})
    UNION ALL
    SELECT 'val' AS split, unnest(splits.val).path AS path FROM read_json(
        getvariable('manifest'), columns = {splits: 'STRUCT(train STRUCT(path VARCHAR)[], val STRUCT(path VARCHAR)[])'})
);
SET VARIABLE train_files = (SELECT list(file ORDER BY file) FROM mix_shards WHERE split = 'train');
SET VARIABLE all_files = (SELECT list(file ORDER BY file) FROM mix_shards);

-- The documents of each split, and of both.
CREATE OR REPLACE TEMP VIEW documents AS
SELECT CASE WHEN list_contains(getvariable('train_files'), filename) THEN 'train' ELSE 'val' END AS split,
       * EXCLUDE (filename)
FROM read_parquet(getvariable('all_files'), filename = true);
CREATE OR REPLACE TEMP VIEW train AS SELECT * FROM read_parquet(getvariable('train_files'));
CREATE OR REPLACE TEMP VIEW val AS SELECT * EXCLUDE (split) FROM documents WHERE split = 'val';

-- The grade of a document as a band that charts can show: 3 is third grade, 2.5 up to 3.5.
CREATE OR REPLACE TEMP MACRO grade_band(grade) AS CASE
    WHEN grade IS NULL THEN 'ungraded' WHEN grade < 0.5 THEN 'K' WHEN grade >= 12.5 THEN '13+'
    ELSE CAST(CAST(floor(grade + 0.5) AS INTEGER) AS VARCHAR) END;

-- Documents, words and third-grade words of train by the values of a column, each with its share of all words.
CREATE OR REPLACE TEMP MACRO share_by(column_name) AS TABLE
SELECT coalesce(CASE column_name
           WHEN 'source' THEN source WHEN 'license' THEN license WHEN 'genre' THEN genre WHEN 'subject' THEN subject
           WHEN 'part' THEN part WHEN 'grade' THEN grade_band(grade) WHEN 'work' THEN work
           ELSE error('share_by takes source, license, grade, genre, subject, part or work') END, '(none)') AS value,
       count(*) AS n_docs,
       CAST(sum(n_words) AS BIGINT) AS n_words,
       CAST(coalesce(sum(n_words) FILTER (part = 'grade3'), 0) AS BIGINT) AS n_words_grade3,
       sum(n_words) / (SELECT sum(n_words) FROM train) AS share
FROM train GROUP BY 1 ORDER BY n_words DESC, value;

-- The third-grade share of the train words: what the manifest calls grade_ratio.actual.
CREATE OR REPLACE TEMP MACRO grade_ratio() AS TABLE
SELECT sum(n_words) FILTER (part = 'grade3') / sum(n_words) AS grade_ratio FROM train;

-- Documents that hold a phrase, the easiest first.
CREATE OR REPLACE TEMP MACRO holding(phrase) AS TABLE
SELECT doc_id, grade, part, title, text FROM train WHERE contains(lower(text), lower(phrase)) ORDER BY grade, doc_id;
