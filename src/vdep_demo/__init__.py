"""The miniature world of ``make demo``: a guest of ``vdep``, which never imports it; config/demo.yaml and rules/demo.smk do."""
