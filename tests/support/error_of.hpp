// The message of the error an action has to end in.
#pragma once

#include <gtest/gtest.h>

#include <string>
#include <string_view>

#include "core/error.hpp"

namespace geom::test {

/// Runs `action`, which has to throw geom::Error with `code`; the message, or "" after a failed expectation.
template <class Action>
std::string error_of(const Action& action, ExitCode code = ExitCode::input) {
    try {
        action();
    } catch (const Error& error) {
        EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
        EXPECT_STRNE(error.what(), "");
        return error.what();
    }
    ADD_FAILURE() << "no error was thrown";
    return "";
}

/// Whether a message holds all of these parts.
template <class... Parts>
::testing::AssertionResult says(const std::string& message, const Parts&... parts) {
    for (const std::string_view part : {std::string_view(parts)...}) {
        if (message.find(part) == std::string::npos) {
            return ::testing::AssertionFailure() << "\"" << message << "\" does not say \"" << part << "\"";
        }
    }
    return ::testing::AssertionSuccess();
}

}  // namespace geom::test
