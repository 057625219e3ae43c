/* sanitized — whether a test is built under a sanitizer, which takes memory, threads
 * and time of its own.
 */
#ifndef OPTIMD_TESTS_SUPPORT_SANITIZED_H
#define OPTIMD_TESTS_SUPPORT_SANITIZED_H

#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define UNDER_ADDRESS_SANITIZER 1
#elif __has_feature(thread_sanitizer)
#define UNDER_THREAD_SANITIZER 1
#endif
#elif defined(__SANITIZE_ADDRESS__)
#define UNDER_ADDRESS_SANITIZER 1
#elif defined(__SANITIZE_THREAD__)
#define UNDER_THREAD_SANITIZER 1
#endif
#if !defined(UNDER_ADDRESS_SANITIZER)
#define UNDER_ADDRESS_SANITIZER 0
#endif
#if !defined(UNDER_THREAD_SANITIZER)
#define UNDER_THREAD_SANITIZER 0
#endif
#define IS_SANITIZED (UNDER_ADDRESS_SANITIZER || UNDER_THREAD_SANITIZER)

#endif
