#!/usr/bin/env bash
# Made by `make lock` from requirements.lock.
set -euo pipefail
python -m pip install 'torch==2.13.0'
python -m pip install --no-deps -r /dev/stdin <<'PINS'
absl-py==2.5.1
accelerate==1.15.0
aiohappyeyeballs==2.7.1
aiohttp==3.14.5
aiosignal==1.4.0
annotated-doc==0.0.7
annotated-types==0.8.0
anyio==4.16.0 ; sys_platform != 'emscripten'
argparse-dataclass==2.0.0
ast-serialize==0.13.1
attrs==26.1.0
black==26.10.1
certifi==2026.10.18
chardet==6.0.0.post1
charset-normalizer==3.5.2
click==8.5.1
cloudpickle==3.1.2
colorama==0.4.6
conda-inject==1.3.2
configargparse==1.9.0
connection-pool==0.0.3
contourpy==1.3.3 ; python_full_version < '3.12'
contourpy==1.4.0 ; python_full_version >= '3.12'
cycler==0.12.1
dataproperty==1.1.1
datasets==5.2.0
decord==0.6.0
deepspeed==0.19.8
dill==0.4.1
docutils==0.22.4
dpath==2.2.0
einops==0.8.2
et-xmlfile==2.0.0
evaluate==0.4.6
fastjsonschema==2.22.3
filelock==4.2.11
fonttools==4.68.0
formulaic==1.2.2
frozenlist==1.8.0
fsspec==2026.9.0
gitdb==4.0.12
gitpython==3.2.1
greenlet==3.5.6 ; platform_machine == 'AMD64' or platform_machine == 'WIN32' or platform_machine == 'aarch64' or platform_machine == 'amd64' or platform_machine == 'ppc64le' or platform_machine == 'win32' or platform_machine == 'x86_64'
grpcio==1.85.1
h11==0.16.0 ; sys_platform != 'emscripten'
hf-xet==1.8.0 ; platform_machine == 'AMD64' or platform_machine == 'ARM64' or platform_machine == 'aarch64' or platform_machine == 'amd64' or platform_machine == 'arm64' or platform_machine == 'x86_64'
hjson==3.1.0
httpcore2==2.16.2 ; sys_platform != 'emscripten'
httpx2-jsfetch==1.0 ; python_full_version >= '3.12' and sys_platform == 'emscripten'
httpx2==2.16.2
huggingface-hub==2.4.0
humanfriendly==10.0
hypothesis==6.170.15
idna==3.20
immutables==0.21
iniconfig==2.3.1
interface-meta==2.0.1
jinja2==3.1.6
joblib==1.6.0
jsonschema-specifications==2025.9.1
jsonschema==4.26.0
jupyter-core==5.9.1
kiwisolver==1.5.1
librt==0.16.0 ; platform_python_implementation != 'PyPy'
lmms-eval==0.7.3
loguru==0.7.3
lxml==6.1.3
markdown-it-py==4.3.0
markdown==3.11.3
markupsafe==3.0.4
matplotlib==3.11.2
mbstrdecoder==1.1.5
mdurl==0.1.2
mpmath==1.3.0
msgpack==1.2.4
multidict==7.2.1
multiprocess==0.70.19
mypy-extensions==1.2.0
mypy==2.4.1
narwhals==2.29.0
nbformat==5.11.1
networkx==3.6.1 ; python_full_version < '3.12'
networkx==3.7 ; python_full_version >= '3.12'
ninja==1.13.2
numpy==2.4.6
openpyxl==3.1.5
packaging==25.0
pandas==3.1.1
pathspec==1.1.1
pathvalidate==3.3.1
patsy==1.0.3
pillow==13.0.0
platformdirs==4.14.7
playwright==1.65.2
pluggy==1.7.0
portalocker==4.4.2
propcache==0.5.4
protobuf==7.36.2
psutil==7.2.2
pulp==3.3.2
py-cpuinfo==9.0.0
pyarrow==26.0.1
pydantic-core==2.50.4
pydantic==2.14.3
pyee==13.0.1
pygments==2.21.0
pyparsing==3.3.3
pyreadline3==3.5.6 ; sys_platform == 'win32'
pytablewriter==1.2.1
pytest-timeout==2.4.0
pytest==9.2.0
python-dateutil==2.9.0.post0
pytokens==0.4.1
pytz==2026.6
pyyaml==6.0.3
referencing==0.37.0
regex==2026.11.15
requests==2.34.2
rich==15.0.0
rpds-py==2026.9.1
ruff==0.17.6
sacrebleu==2.6.0
safetensors==0.8.0
scikit-learn==1.9.1
scipy==1.17.1
sentencepiece==0.2.3
setuptools==84.2.1
shellingham==1.5.4
shfmt-py==4.2.0
six==1.17.0
smart-open==7.7.1
smmap==5.0.3
snakefmt==2.1.0
snakemake-executor-plugin-slurm-jobstep==0.6.1
snakemake-executor-plugin-slurm==2.8.0
snakemake-interface-common==1.23.0
snakemake-interface-executor-plugins==9.4.0
snakemake-interface-logger-plugins==2.1.0
snakemake-interface-report-plugins==1.3.0
snakemake-interface-scheduler-plugins==2.0.2
snakemake-interface-storage-plugins==4.4.1
snakemake==9.27.1
sortedcontainers==2.4.0
sqlalchemy==2.0.58
sqlmodel==0.0.37
statsmodels==0.15.0
sympy==1.14.0
tabledata==1.3.5
tabulate==0.10.0
tcolorpy==0.1.7
tenacity==9.2.1
tensorboard-data-server==0.7.2
tensorboard==2.21.0
threadpoolctl==3.8.0
throttler==1.2.3
tokenizers==0.23.3
tqdm==4.70.1
traitlets==5.16.1
transformers==5.23.0
truststore==0.10.5 ; sys_platform != 'emscripten'
typepy==1.3.5
typer==0.29.2
types-pyyaml==6.0.12.20261113
types-requests==2.33.0.20261030
typing-extensions==4.16.0
typing-inspection==0.4.5
tzdata==2026.6 ; sys_platform == 'emscripten' or sys_platform == 'win32'
urllib3==2.8.0
werkzeug==3.1.9
win32-setctime==1.2.1 ; sys_platform == 'win32'
wrapt==2.5.2
xxhash==4.1.0
yarl==1.25.1
yte==1.9.4
PINS
