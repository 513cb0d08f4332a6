"""The list of all rules."""

from __future__ import annotations

from compiler.checks.rule import EXPERIMENTAL, STRICT, Rule
from compiler.checks.rules import config, outside, variables, writing

BUILDKIT = (
    Rule("StageNameCasing", "Stage names should be lowercase", writing.stage_name_casing),
    Rule("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword", writing.from_as_casing),
    Rule(
        "NoEmptyContinuation",
        "Empty continuation lines will become errors in a future release",
        writing.no_empty_continuation,
    ),
    Rule(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
        writing.consistent_instruction_casing,
    ),
    Rule("DuplicateStageName", "Stage names should be unique", writing.duplicate_stage_name),
    Rule("ReservedStageName", "Reserved words should not be used as stage names", writing.reserved_stage_name),
    Rule(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
        config.json_args_recommended,
    ),
    Rule(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
        writing.maintainer_deprecated,
    ),
    Rule("UndefinedArgInFrom", "FROM command must use declared ARGs", variables.undefined_arg_in_from),
    Rule("UndefinedVar", "Variables should be defined before their use", variables.undefined_var),
    Rule(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the "
        "base image changes",
        config.workdir_relative_path,
    ),
    Rule(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
        config.multiple_instructions_disallowed,
    ),
    Rule(
        "LegacyKeyValueFormat",
        "Legacy key/value format with whitespace separator should not be used",
        writing.legacy_key_value_format,
    ),
    Rule(
        "InvalidBaseImagePlatform",
        "Base image platform does not match expected target platform",
        outside.invalid_base_image_platform,
    ),
    Rule(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
        outside.redundant_target_platform,
    ),
    Rule(
        "SecretsUsedInArgOrEnv",
        "Sensitive data should not be used in the ARG or ENV commands",
        variables.secrets_used_in_arg_or_env,
    ),
    Rule(
        "InvalidDefaultArgInFrom",
        "Default value for global ARG results in an empty or invalid base image name",
        variables.invalid_default_arg_in_from,
    ),
    Rule(
        "FromPlatformFlagConstDisallowed",
        "FROM --platform flag should not use a constant value",
        outside.from_platform_flag_const_disallowed,
    ),
    Rule(
        "CopyIgnoredFile",
        "Attempting to Copy file that is excluded by .dockerignore",
        outside.copy_ignored_file,
    ),
    Rule(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is "
        "not intended to be a description comment, add an empty line or comment between the instruction and the "
        "comment.",
        writing.invalid_definition_description,
        EXPERIMENTAL,
    ),
    Rule("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase", config.expose_proto_casing),
    Rule(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a "
        "future release",
        config.expose_invalid_format,
    ),
)
"""The rules of BuildKit's `frontend/dockerfile/linter/ruleset.go` with their descriptions."""


def strict_rules() -> tuple[Rule, ...]:
    """Our own rules; imported only where one is on."""
    from compiler.checks.strict import (
        add_instead_of_copy,
        apt_lists_left,
        cd_in_run,
        consecutive_runs,
        last_user_root,
        pipefail_missing,
        sudo_in_run,
        unpinned_version,
    )

    return (
        Rule("UnpinnedVersion", "Images and packages should have a version", unpinned_version.check, STRICT),
        Rule("AptListsLeft", "Package lists of apt should not stay in a layer", apt_lists_left.check, STRICT),
        Rule("CdInRun", "WORKDIR should be used instead of cd", cd_in_run.check, STRICT),
        Rule("SudoInRun", "sudo should not be used in RUN", sudo_in_run.check, STRICT),
        Rule("LastUserRoot", "The image should not end as root", last_user_root.check, STRICT),
        Rule("AddInsteadOfCopy", "COPY should be used for local files", add_instead_of_copy.check, STRICT),
        Rule("PipefailMissing", "A failure before a pipe should not be lost", pipefail_missing.check, STRICT),
        Rule("ConsecutiveRuns", "RUN instructions in a row could be one", consecutive_runs.check, STRICT),
    )
