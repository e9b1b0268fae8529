# Targets for a project's own Makefile: set CONFIG and OUTPUT, include this file, then `make cai-export-preference`.
# They are always made: whether there is something to do, cai knows better than the times of files (it looks at what the config, the
# constitution and the prompts hold), and where there is nothing it asks nothing. `make -j` is safe.
CAI ?= cai
CONFIG ?= cai.yaml
OUTPUT ?= data/mine

_cai_goal := $(.DEFAULT_GOAL)
.PHONY: cai-price cai-dataset cai-check

cai-price: ## What a run would ask, and cost at most
	$(CAI) run $(CONFIG) -o $(OUTPUT) --dry-run

cai-dataset: ## Run what is not done yet; goes on where a run stopped
	$(CAI) run $(CONFIG) -o $(OUTPUT) --if-locked wait

cai-export-%: cai-dataset ## cai-export-sft, cai-export-preference ...: in OUTPUT/export
	$(CAI) export $(CONFIG) -o $(OUTPUT) --to $* --if-locked wait

cai-check: ## Compare every file with its manifest
	$(CAI) verify $(CONFIG) -o $(OUTPUT)

.DEFAULT_GOAL := $(_cai_goal)
