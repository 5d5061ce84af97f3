"""What a project's files say: language, tools, how it is tested; and what they cannot make us do."""

import json

import pytest
from tests.promise import proves

from muster.limits import RANGE_CHARS_MAX
from muster.task import project
from muster.task.version import check_range

VITEST = json.dumps({"scripts": {"test": "vitest"}})


def command_of(files, within=""):
    return project.how_tested(project.parts(files), within)[0]


@proves("scaffold.finds-tests")
@pytest.mark.parametrize(
    ("files", "command"),
    [
        ({"Makefile": "all:\n\ntest: all\n\tx\n"}, "make test"),
        ({"Makefile": "check:\n\tx\n"}, "make check"),
        ({"Makefile": "test := x\nlatest:\n\tx\n"}, ""),
        ({"justfile": "test *args:\n  x\n"}, "just test"),
        ({"Taskfile.yml": "version: 3\ntasks:\n  test:\n    cmd: x\n"}, "task test"),
        ({"pyproject.toml": "[tool.pytest.ini_options]\n"}, "python3 -m pytest"),
        ({"pyproject.toml": "dependencies = ['pytest']", "uv.lock": ""}, "uv run pytest"),
        ({"pyproject.toml": "", "noxfile.py": ""}, "nox"),
        ({"pyproject.toml": "", "tox.ini": "", "uv.lock": ""}, "uv run tox"),
        ({"pyproject.toml": "[tool.tox]\n"}, "tox"),
        ({"pyproject.toml": "pytest = '8'", "poetry.lock": ""}, "poetry run pytest"),
        ({"setup.py": "", "tests/test_x.py": ""}, "python3 -m unittest discover tests"),
        ({"requirements.txt": "django", "manage.py": ""}, "python3 manage.py test"),
        ({"pyproject.toml": ""}, ""),
        ({"package.json": VITEST}, "npm install && npm test"),
        ({"package.json": VITEST, "package-lock.json": ""}, "npm ci && npm test"),
        ({"package.json": VITEST, "pnpm-lock.yaml": ""},
         "pnpm install --frozen-lockfile && pnpm test"),
        ({"package.json": VITEST, "yarn.lock": ""}, "yarn install && yarn test"),
        ({"package.json": VITEST, "yarn.lock": "", ".yarnrc.yml": ""},
         "yarn install --immutable && yarn test"),
        ({"package.json": VITEST, "bun.lock": ""}, "bun install --frozen-lockfile && bun run test"),
        ({"package.json": json.dumps({"scripts": {"test": "x"}, "packageManager": "pnpm@9"})},
         "pnpm install && pnpm test"),
        ({"package.json": '{"scripts":{"test":"echo \\"Error: no test specified\\" && exit 1"}}'}, ""),
        ({"Cargo.toml": "[package]\n"}, "cargo test"),
        ({"Cargo.toml": "[workspace]\n"}, "cargo test --workspace"),
        ({"go.mod": "module x\n\ngo 1.22\n"}, "go test ./..."),
        ({"build.gradle.kts": "", "gradlew": ""}, "sh ./gradlew test"),
        ({"build.gradle": ""}, "gradle test"),
        ({"pom.xml": "<x/>"}, "mvn -B test"),
        ({"pom.xml": "<x/>", "mvnw": ""}, "sh ./mvnw -B test"),
        ({"CMakeLists.txt": "enable_testing()"},
         "cmake -S . -B build && cmake --build build && ctest --test-dir build --output-on-failure"),
        ({"CMakeLists.txt": "project(x)"}, ""),
        ({"mix.exs": ""}, "mix deps.get && mix test"),
        ({"Gemfile": "", "spec/x_spec.rb": ""}, "bundle install && bundle exec rspec"),
        ({"Gemfile": "", "Rakefile": "Rake::TestTask.new"}, "bundle install && bundle exec rake test"),
        ({"composer.json": '{"scripts": {"test": "phpunit"}}'}, "composer install && composer test"),
        ({"composer.json": "{}", "phpunit.xml.dist": ""}, "composer install && vendor/bin/phpunit"),
        ({"x.sln": ""}, "dotnet test"),
        # Who wrote a target for the tests meant it for this question.
        ({"Makefile": "test:\n", "Cargo.toml": ""}, "make test"),
        ({"README.md": "make test"}, ""),
    ],
)  # fmt: skip
def test_how_a_project_is_tested_is_found_in_its_files(files, command):
    assert command_of(files) == command


@proves("scaffold.finds-versions")
@pytest.mark.parametrize(
    ("files", "tools"),
    [
        ({"pyproject.toml": '[project]\nrequires-python = ">=3.11, <4"'}, {"python": ">=3.11,<4"}),
        ({"pyproject.toml": '[tool.poetry.dependencies]\npython = "^3.9"'}, {"python": ">=3.9,<4"}),
        ({"pyproject.toml": "[project]\nrequires-python = 3"}, {"python": "*"}),
        ({"package.json": '{"engines": {"node": ">= 18"}}'}, {"node": ">=18", "npm": "*"}),
        ({"package.json": '{"engines": {"node": ">=18 <21"}}'}, {"node": ">=18,<21", "npm": "*"}),
        ({"package.json": '{"engines": {"node": "18 || 20"}}'}, {"node": "*", "npm": "*"}),
        ({"package.json": '{"engines": {"node": "^0.2.1"}}'}, {"node": "*", "npm": "*"}),
        ({"Cargo.toml": '[package]\nrust-version = "1.70"'}, {"cargo": "*", "rustc": ">=1.70"}),
        ({"go.mod": "go 1.22\n"}, {"go": ">=1.22"}),
        ({"pom.xml": "<java.version>17</java.version>"}, {"java": ">=17", "mvn": "*"}),
        ({"CMakeLists.txt": "CMAKE_MINIMUM_REQUIRED(VERSION 3.16)"}, {"cmake": ">=3.16"}),
    ],
)  # fmt: skip
def test_the_versions_that_a_project_asks_for_are_ranges_of_ours(files, tools):
    (part,) = project.parts(files)
    assert part.tools == tools
    for wanted in part.tools.values():
        check_range(wanted)


@proves("scaffold.finds-parts")
def test_a_folder_of_a_larger_project_speaks_for_itself_and_the_whole_before_all_of_them():
    files = {
        "services/api/go.mod": "go 1.22\n",
        "services/web/package.json": VITEST,
        "libs/x/Cargo.toml": "",
        "services/web/node_modules/y/package.json": VITEST,
        "vendor/x/go.mod": "",
        ".hidden/go.mod": "",
        "a/b/c/d/go.mod": "",
    }
    assert [part.folder for part in project.parts(files)] == [
        "libs/x", "services/api", "services/web",
    ]  # fmt: skip
    assert command_of(files, "services/api/internal") == "(cd services/api && go test ./...)"
    assert command_of(files).splitlines() == [
        "(cd libs/x && cargo test)",
        "(cd services/api && go test ./...)",
        "(cd services/web && npm install && npm test)",
    ]
    assert project.groups(project.parts(files)) == "services/*/"
    assert project.groups(project.parts({"go.mod": ""})) == "*/"
    whole = {**files, "Makefile": "test:\n"}
    assert command_of(whole) == "make test"
    # A name that begins alike is another folder.
    assert command_of({"web/go.mod": "", "Makefile": "test:\n"}, "website") == "make test"


@proves("scaffold.files-are-data")
@pytest.mark.parametrize(
    "files",
    [
        {"package.json": "[" * 100_000},
        {"package.json": '{"scripts": ' + "9" * 10_000 + "}"},
        {"package.json": "[]"},
        {"package.json": '{"scripts": {"test": ["x"]}, "engines": 1, "packageManager": {}}'},
        {"pyproject.toml": "a = " + "[" * 100_000},
        {"pyproject.toml": "a = " + "9" * 10_000},
        {"pyproject.toml": "project = 1"},
        {"package.json": json.dumps({"engines": {"node": "1" + " " * 200_000 + "x"}})},
        {"Cargo.toml": "\0"},
        {"composer.json": "nothing"},
        {"Makefile": "\t" * 100_000 + "x"},
        {"CMakeLists.txt": "enable_testing " * 10_000},
        {"Taskfile.yml": "\ntasks:" + " " * 100_000},
    ],
)
def test_files_that_are_not_what_their_name_says_end_nothing(files):
    for part in project.parts(files):
        assert all(check_range(wanted) is not None for wanted in part.tools.values())


@proves("scaffold.files-are-data")
def test_what_is_longer_than_any_range_of_versions_is_none():
    def node(wanted: str) -> str:
        package = json.dumps({"engines": {"node": wanted}})
        return project.parts({"package.json": package})[0].tools["node"]

    assert node(f">=3{' ' * (RANGE_CHARS_MAX - 5)}<4") == ">=3,<4"
    assert node(f">=3{' ' * (RANGE_CHARS_MAX - 4)}<4") == "*"


@proves("scaffold.files-are-data")
def test_no_text_of_a_file_and_no_odd_folder_gets_into_shell_source():
    evil = "x; rm -rf ~\n"
    files = {
        f"{evil}/go.mod": "",
        "a b/go.mod": "",
        "-x/go.mod": "",
        "$(id)/go.mod": "",
        "p/package.json": json.dumps(
            {"scripts": {"test": evil}, "packageManager": evil, "engines": {"node": f">=1{evil}"}}
        ),
        "q/pyproject.toml": '[project]\nrequires-python = """>=3\n; rm"""\n',
    }
    command, why = project.how_tested(project.parts(files))
    assert command == "(cd p && npm install && npm test)"
    shown = f"{project.parts(files)} {command} {why}"
    assert "rm" not in shown.replace("npm", "").replace("frozen", "")
    assert "\n" not in shown
